#!/usr/bin/env python3
"""The function of `bench -- runtimes`: gives back what it gets, in the runtime that its argument names."""

import os
import sys


def native():
    import quickfire

    quickfire.serve(lambda call: call.payload)


def stdio():
    import json

    for line in sys.stdin:
        call = json.loads(line)
        body = {"result": call["body"]} if "body" in call else {"result_base64": call["body_base64"]}
        print(json.dumps({"id": call["id"], **body}), flush=True)


def http():
    import http.server

    class Echo(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()


def lambda_():
    import http.client

    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    path = "/2018-06-01/runtime/invocation"
    while True:
        connection.request("GET", f"{path}/next")
        call = connection.getresponse()
        body = call.read()
        connection.request("POST", f"{path}/{call.headers['Lambda-Runtime-Aws-Request-Id']}/response", body)
        connection.getresponse().read()


{"native": native, "stdio": stdio, "http": http, "lambda": lambda_}[sys.argv[1]]()

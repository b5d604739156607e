#!/usr/bin/env python3
"""Runtime `http`: an API back-end, as any HTTP server is one.

Prices an order: takes JSON with customer, country and lines, and gives the totals; 422 and the reason if it is no order. The
port comes in the variable PORT; GET /ready says that the price list is loaded.

    quickfire invoke orders --in examples/functions/samples/order.json
"""

import decimal
import http.server
import json
import os

PRICES = {"bread": "2.40", "coffee": "8.90", "tea": "5.20", "honey": "7.75"}
TAX = {"DE": "0.07", "FR": "0.055", "US": "0"}


class NotAnOrder(Exception):
    pass


def price(order):
    try:
        tax = decimal.Decimal(TAX[order["country"]])
        lines = [(PRICES[line["item"]], int(line["count"])) for line in order["lines"]]
    except (KeyError, TypeError, ValueError) as error:
        raise NotAnOrder(f"not an order we can price: {error!r}") from error
    net = sum(decimal.Decimal(price) * count for price, count in lines)
    total = (net * (1 + tax)).quantize(decimal.Decimal("0.01"))
    return {"customer": order.get("customer"), "items": sum(count for _, count in lines), "net": str(net), "total": str(total)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(204 if self.path == "/ready" else 404, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.answer(200, json.dumps(price(json.loads(body))).encode())
        except (NotAnOrder, ValueError) as error:
            self.answer(422, str(error).encode())

    def answer(self, status, body):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()

"""A function as it is written for AWS Lambda: takes the event that S3 sends when files were uploaded, and says what is to be done
with each of them.

    quickfire invoke upload --in examples/functions/samples/s3-put.json
"""

import os.path
import urllib.parse

STEPS = {".jpg": "thumbnail", ".png": "thumbnail", ".txt": "moderate", ".csv": "import"}


def handler(event, context):
    steps = []
    for record in event["Records"]:
        uploaded = record["s3"]["object"]
        key = urllib.parse.unquote_plus(uploaded["key"])
        step = STEPS.get(os.path.splitext(key)[1].lower(), "archive")
        steps.append({"bucket": record["s3"]["bucket"]["name"], "key": key, "size": uploaded["size"], "step": step})
    print(f"{context.aws_request_id}: {len(steps)} files, {context.get_remaining_time_in_millis()} ms left")
    return {"steps": steps, "function": context.function_name}

"""An object store for tests: the S3 of moto, with its checks of signatures and permissions switched on.

Prints one line of JSON when it is ready. Then it takes one command a line, a list in JSON, does it with boto3 and answers with one
line. It ends with its standard input.
"""

import base64
import json
import logging
import sys

import boto3
import requests
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

BUCKET = "rolls"
REGION = "eu-central-1"


def policy(*actions):
    resources = "*" if actions == ("s3:*",) else [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resources}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"


def client(service, **credentials):
    if not credentials:
        credentials = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nobody"}
    return boto3.client(service, endpoint_url=endpoint, region_name=REGION, **credentials)


client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
iam = client("iam")
keys = {}
for user, actions in {
    "keeper": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
    "reader": ["s3:GetObject", "s3:ListBucket"],
    "admin": ["s3:*"],
}.items():
    iam.create_user(UserName=user)
    iam.put_user_policy(UserName=user, PolicyName="own", PolicyDocument=policy(*actions))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    keys[user] = {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
role = iam.create_role(
    RoleName="lent", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
)
iam.put_role_policy(RoleName="lent", PolicyName="own", PolicyDocument=policy("s3:*"))
lent = client("sts").assume_role(RoleArn=role["Role"]["Arn"], RoleSessionName="test")["Credentials"]
keys["lent"] = {"id": lent["AccessKeyId"], "secret": lent["SecretAccessKey"], "token": lent["SessionToken"]}
requests.post(f"{endpoint}/moto-api/reset-auth", data="0", timeout=10).raise_for_status()
admin = client("s3", aws_access_key_id=keys["admin"]["id"], aws_secret_access_key=keys["admin"]["secret"])
print(json.dumps({"endpoint": endpoint, "bucket": BUCKET, "region": REGION, "keys": keys}), flush=True)

for line in sys.stdin:
    command, *arguments = json.loads(line)
    answer = None
    if command == "get":
        try:
            answer = admin.get_object(Bucket=BUCKET, Key=arguments[0])["Body"].read()
            answer = base64.b64encode(answer).decode()
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
    elif command == "put":
        admin.put_object(Bucket=BUCKET, Key=arguments[0], Body=base64.b64decode(arguments[1]))
    elif command == "delete":
        admin.delete_object(Bucket=BUCKET, Key=arguments[0])
    elif command == "list":
        pages = admin.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        answer = [found["Key"] for page in pages for found in page.get("Contents", [])]
    print(json.dumps(answer), flush=True)

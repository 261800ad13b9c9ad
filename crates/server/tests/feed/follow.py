"""What others.rs has Python's gRPC do: follow the feed and print it; each line is checked there."""

import sys
import tempfile

import grpc
from grpc_tools import protoc

proto, address, roots, certificate, key, after = sys.argv[1:]
made = tempfile.mkdtemp()
assert protoc.main(["", f"-I{proto}", f"--python_out={made}", f"--grpc_python_out={made}", "status_feed.proto"]) == 0
sys.path.insert(0, made)
import status_feed_pb2 as messages
import status_feed_pb2_grpc as services


def read(path):
    with open(path, "rb") as file:
        return file.read()


credentials = grpc.ssl_channel_credentials(read(roots), read(key), read(certificate))
stub = services.StatusFeedStub(grpc.secure_channel(address, credentials))
try:
    for event in stub.Follow(messages.FollowRequest(after=int(after), instance="python")):
        what = event.WhichOneof("change")
        if what == "end":
            print(event.sequence, what, event.end.reason, flush=True)
        elif what != "heartbeat":
            serials = getattr(event, what).serials
            print(event.sequence, what, *(serial.hex() for serial in serials), flush=True)
except grpc.RpcError as error:
    print(error.code().name, flush=True)

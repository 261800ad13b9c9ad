"""What clients.rs has the Python package `spiffe` do; each line is checked there."""

import threading

from spiffe import WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import FetchX509SvidError, ValidateJwtSvidError


def say(*words):
    print(*words, flush=True)


client = WorkloadApiClient()
updated = threading.Event()
context = client.fetch_x509_context()
svid = context.default_svid
say("svid", svid.spiffe_id, "chain", len(svid.cert_chain))

source = X509Source()
source.subscribe_for_updates(updated.set)

bundles = client.fetch_x509_bundles()
say("bundles", *sorted(bundle.trust_domain.name for bundle in bundles.bundles))

token = client.fetch_jwt_svid(audience={"reports"})
validated = client.validate_jwt_svid(token.token, "reports")
say("token", validated.spiffe_id, *validated.audience)
try:
    client.validate_jwt_svid(token.token, "others")
except ValidateJwtSvidError:
    say("refused others")

while not str(source.svid.spiffe_id).endswith("/rotated"):
    assert updated.wait(30)
    updated.clear()
say("rotated", source.svid.spiffe_id)

while True:
    try:
        client.fetch_x509_svid()
    except FetchX509SvidError as error:
        say("denied" if "PERMISSION_DENIED" in str(error) else error)
        break
source.close()
client.close()

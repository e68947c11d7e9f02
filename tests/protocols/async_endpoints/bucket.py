"""A real S3-compatible server: buckets have to exist, uploads in parts and presigned addresses work as with any other. It does
not look at signatures, so the tests do."""

import time
import urllib.parse

import boto3
from moto.server import ThreadedMotoServer

KEY_ID = "bucket-key-id"
SECRET = "s3cret-s3cret"


class Bucket:
    """Runs as long as its block, with these buckets, and the one that RunPod's SDK takes where it is told none."""

    def __init__(self, *names):
        self.names = [*names, time.strftime("%m-%y")]

    def __enter__(self):
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self._s3 = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET, region_name="us-east-1",
        )
        for name in self.names:
            self._s3.create_bucket(Bucket=name)
        return self

    def __exit__(self, *_):
        self._server.stop()

    def stored(self, bucket, key):
        """The bytes of an object."""
        return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def signed_with(url):
    """The key id that an address is signed with, and the bucket it is in."""
    parts = urllib.parse.urlsplit(url)
    query = urllib.parse.parse_qs(parts.query)
    (credential,) = query["X-Amz-Credential"]
    assert query["X-Amz-Signature"]
    return credential.split("/")[0], parts.path.split("/")[1]

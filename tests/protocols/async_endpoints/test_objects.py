"""Where no bucket is configured, workers of both SDKs keep their files with the server, and everybody can open the addresses
that they return; and boto3, which both SDKs and everybody else use, against that surface."""

import hashlib
import json
import socket
import subprocess
import sys
import time
import urllib.parse

import boto3
import boto3.s3.transfer
import botocore.exceptions
import pytest
import requests
from botocore.config import Config

from darkroom_server import Server, binary
from test_programs import PROGRAMS
from worker_calls import KEYS, LIMIT_S, call, ended, run, wait_for
from bucket import signed_with


@pytest.fixture(scope="module")
def server():
    text = KEYS
    for name, program in [("ppio", "ppio_handler.py"), ("runpod", "runpod_files_handler.py")]:
        text += f"""
[endpoints.{name}]
kind = "worker"
python = {json.dumps(sys.executable)}
handler = {json.dumps(str(PROGRAMS / program))}
"""
    text += '[endpoints.alone]\nkind = "worker"\n[endpoints.other]\nkind = "worker"\n'
    with Server(text) as running:
        yield running


def box(server, name, endpoint):
    """What a worker elsewhere is started with, once its key was made."""
    command = [
        str(binary()), "--server", server.url, "--key", "sk_admin", "--json",
        "keys", "create", "--name", name, "--scope", "worker", "--endpoint", endpoint,
    ]
    made = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)["environment"]


def s3(told, **config):
    """boto3 as the SDKs make it of their environment."""
    return boto3.client(
        "s3", endpoint_url=told["BUCKET_ENDPOINT_URL"], aws_access_key_id=told["BUCKET_ACCESS_KEY_ID"],
        aws_secret_access_key=told["BUCKET_SECRET_ACCESS_KEY"], region_name="us-east-1",
        config=Config(signature_version="s3v4", retries={"max_attempts": 2, "mode": "standard"}, **config),
    )


@pytest.fixture(scope="module")
def told(server):
    return box(server, "box", "alone")


@pytest.fixture(scope="module")
def client(told):
    return s3(told)


def refused(call):
    """The code and the status that boto3 raises."""
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call()
    answer = raised.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_uploads_of_ppios_sdk_without_a_bucket_are_opened_by_everybody(server):
    output = ended(server, "ppio", run(server, "ppio", {"prompt": "a red apple 苹果"}))["output"]
    for image in output["images"]:
        assert image["url"].startswith(f"{server.url}/darkroom/s3/outputs/")
        assert signed_with(image["url"])[0] == "DKO.ppio"
        seen = requests.get(image["url"], timeout=60)
        assert seen.content.startswith(b"\x89PNG") and seen.headers["Content-Type"] == "image/png"
    text = requests.get(output["text"], timeout=60)
    assert text.content.decode() == "a red apple 苹果" and "notes.txt" in text.headers["Content-Disposition"]
    assert requests.get(output["raw"], timeout=60).content == b"\0\1\2"


def test_uploads_of_runpods_sdk_without_a_bucket_are_opened_by_everybody(server):
    job = run(server, "runpod", {"prompt": "苹果", "large_kib": 40_000})
    output = ended(server, "runpod", job)["output"]
    for url in [output["image"], *output["images"]]:
        # The bucket that RunPod's SDK takes where the handler names none is called after the month.
        assert signed_with(url)[0] == "DKO.runpod"
        assert f"/{time.strftime('%m-%y')}/{job}/" in url
        assert requests.get(url, timeout=60).content.decode() == "苹果"
    assert requests.get(output["file"], timeout=60).content == bytes(range(256)) * 160_000
    assert requests.get(output["memory"], timeout=60).content == b"\0\1\2"
    log = server.log()
    assert "X-Amz-Signature" not in log and "X-Amz-Credential" not in log


def test_addresses_outlive_the_server_and_the_worker(server):
    output = ended(server, "runpod", run(server, "runpod", {"prompt": "kept"}))["output"]
    assert server.stop() == 0
    server.start()
    assert requests.get(output["image"], timeout=60).text == "kept"


def test_what_is_put_reads_back_whole_and_in_part(client):
    body = "图像".encode() * 1000
    put = client.put_object(Bucket="any", Key="文件/a b+%.txt", Body=body, ContentType="text/plain")
    got = client.get_object(Bucket="any", Key="文件/a b+%.txt")
    assert got["Body"].read() == body and got["ContentType"] == "text/plain" and got["ETag"] == put["ETag"]
    head = client.head_object(Bucket="any", Key="文件/a b+%.txt")
    assert head["ContentLength"] == len(body) and head["ETag"] == put["ETag"] and head["LastModified"]
    part = client.get_object(Bucket="any", Key="文件/a b+%.txt", Range="bytes=6-11")
    assert part["Body"].read() == body[6:12] and part["ContentRange"] == f"bytes 6-11/{len(body)}"
    assert refused(lambda: client.get_object(Bucket="any", Key="文件/a b+%.txt", Range=f"bytes={len(body)}-"))[1] == 416
    again = client.put_object(Bucket="any", Key="文件/a b+%.txt", Body=b"")
    assert again["ETag"] != put["ETag"]
    assert client.get_object(Bucket="any", Key="文件/a b+%.txt")["Body"].read() == b""
    # The same key in another bucket is another object.
    assert refused(lambda: client.get_object(Bucket="other", Key="文件/a b+%.txt")) == ("NoSuchKey", 404)
    client.delete_object(Bucket="any", Key="文件/a b+%.txt")
    client.delete_object(Bucket="any", Key="文件/a b+%.txt")
    assert refused(lambda: client.get_object(Bucket="any", Key="文件/a b+%.txt")) == ("NoSuchKey", 404)


def test_files_come_in_parts_of_any_size(client, tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(100_000)))
    # RunPod's SDK sets parts of 25 KB, less than S3 itself takes.
    parts = boto3.s3.transfer.TransferConfig(multipart_threshold=25 * 1024, multipart_chunksize=5 << 20, max_concurrency=4)
    client.upload_file(str(path), "parts", "j/large.bin", Config=parts, ExtraArgs={"ContentType": "video/mp4"})
    got = client.get_object(Bucket="parts", Key="j/large.bin")
    assert got["Body"].read() == path.read_bytes() and got["ContentType"] == "video/mp4"

    upload = client.create_multipart_upload(Bucket="parts", Key="small")["UploadId"]
    named = []
    for number in (1, 3):
        tag = client.upload_part(Bucket="parts", Key="small", UploadId=upload, PartNumber=number, Body=f"part {number};")["ETag"]
        named.append({"PartNumber": number, "ETag": tag})
    swapped = {"Parts": list(reversed(named))}
    join = {"Bucket": "parts", "Key": "small", "UploadId": upload}
    assert refused(lambda: client.complete_multipart_upload(**join, MultipartUpload=swapped))[0] == "InvalidPartOrder"
    wrong = {"Parts": [{"PartNumber": 1, "ETag": named[1]["ETag"]}]}
    assert refused(lambda: client.complete_multipart_upload(**join, MultipartUpload=wrong))[0] == "InvalidPart"
    tag = client.complete_multipart_upload(**join, MultipartUpload={"Parts": named})["ETag"]
    # A client that missed the answer asks again.
    assert client.complete_multipart_upload(**join, MultipartUpload={"Parts": named})["ETag"] == tag
    assert client.get_object(Bucket="parts", Key="small")["Body"].read() == b"part 1;part 3;"
    elsewhere = {**join, "Key": "elsewhere"}
    assert refused(lambda: client.complete_multipart_upload(**elsewhere, MultipartUpload={"Parts": named}))[0] == "NoSuchUpload"

    upload = client.create_multipart_upload(Bucket="parts", Key="given up")["UploadId"]
    given_up = {"Bucket": "parts", "Key": "given up", "UploadId": upload}
    client.upload_part(**given_up, PartNumber=1, Body=b"x")
    client.abort_multipart_upload(**given_up)
    only = {"Parts": [{"PartNumber": 1, "ETag": '"x"'}]}
    assert refused(lambda: client.complete_multipart_upload(**given_up, MultipartUpload=only))[0] == "NoSuchUpload"


def test_bytes_are_checked_by_every_digest_that_boto3_sends(client):
    for algorithm in ["CRC32", "SHA1", "SHA256"]:
        client.put_object(Bucket="sums", Key=algorithm, Body=b"hello", ChecksumAlgorithm=algorithm)
        assert client.get_object(Bucket="sums", Key=algorithm)["Body"].read() == b"hello"
    lies = {"ContentMD5": "XUFAKrxLKna5cZ2REBfFkg==", "ChecksumSHA256": hashlib.sha256(b"hello").digest().hex()[:43] + "="}
    for name, digest in lies.items():
        code, status = refused(lambda: client.put_object(Bucket="sums", Key="lie", Body=b"other", **{name: digest}))
        assert (code, status) == ("BadDigest", 400), name
    assert refused(lambda: client.get_object(Bucket="sums", Key="lie"))[0] == "NoSuchKey"


def test_addresses_are_good_for_what_they_say_and_as_long_as_they_say(server, client, told):
    client.put_object(Bucket="any", Key="dir/page.html", Body=b"<script>1</script>", ContentType="text/html")
    url = client.generate_presigned_url("get_object", Params={"Bucket": "any", "Key": "dir/page.html"}, ExpiresIn=600)
    seen = requests.get(url, timeout=60)
    assert seen.content == b"<script>1</script>"
    # Whatever a worker says of a file, no browser runs it from our origin.
    assert seen.headers["Content-Type"] == "application/octet-stream"
    assert seen.headers["Content-Disposition"].startswith("attachment") and "sandbox" in seen.headers["Content-Security-Policy"]
    for tampered in [
        url.replace("page.html", "page2.html"), url.replace("/any/", "/other/"), url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000"),
        url.replace(told["BUCKET_ACCESS_KEY_ID"], "DKO.alone"), url.replace("X-Amz-Signature=", "X-Amz-Signature=0"),
        url + "&response-content-type=text%2Fhtml",
    ]:
        assert requests.get(tampered, timeout=60).status_code in (400, 403), tampered
    bare = url.split("?")[0]
    for method in ["get", "put", "delete", "head"]:
        assert requests.request(method, bare, timeout=60).status_code == 403, method
    # An address for reading writes nothing.
    assert requests.put(url, data=b"x", timeout=60).status_code == 403

    put = client.generate_presigned_url("put_object", Params={"Bucket": "any", "Key": "by address"}, ExpiresIn=600)
    assert requests.put(put, data=b"put by address", timeout=60).status_code == 200
    assert client.get_object(Bucket="any", Key="by address")["Body"].read() == b"put by address"

    brief = client.generate_presigned_url("get_object", Params={"Bucket": "any", "Key": "by address"}, ExpiresIn=1)
    wait_for("the address expires", lambda: requests.get(brief, timeout=60).status_code == 403)
    assert "expired" in requests.get(brief, timeout=60).text


def test_a_key_opens_its_endpoints_objects_only_and_no_more_once_it_is_revoked(server, client):
    client.put_object(Bucket="any", Key="mine", Body=b"mine")
    second = s3(box(server, "second", "alone"))
    assert second.get_object(Bucket="any", Key="mine")["Body"].read() == b"mine"
    others = s3(box(server, "others", "other"))
    assert refused(lambda: others.get_object(Bucket="any", Key="mine")) == ("NoSuchKey", 404)
    call(server, "delete", "/darkroom/v1/keys/second", key="sk_admin")
    assert refused(lambda: second.get_object(Bucket="any", Key="mine")) == ("InvalidAccessKeyId", 403)
    assert refused(lambda: second.put_object(Bucket="any", Key="mine", Body=b"x")) == ("InvalidAccessKeyId", 403)
    assert client.get_object(Bucket="any", Key="mine")["Body"].read() == b"mine"


def test_what_is_not_offered_says_so(client):
    assert refused(lambda: client.list_buckets())[1] == 400
    for odd in [lambda: client.copy_object(Bucket="any", Key="b", CopySource="any/a"), lambda: client.put_object_acl(Bucket="any", Key="a", ACL="private")]:
        assert refused(odd)[0] == "NotImplemented"
    client.head_bucket(Bucket="any")
    parts = urllib.parse.urlsplit(client.meta.endpoint_url)
    assert requests.get(f"{parts.scheme}://{parts.netloc}/darkroom/s3/any?list-type=2", timeout=60).status_code == 403


def test_a_form_is_refused_before_anything_of_it_is_read(server):
    host, port = urllib.parse.urlsplit(server.url).netloc.split(":")
    head = (
        f"POST /darkroom/s3/x/y HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 20000000\r\n"
        "Content-Type: Multipart/Form-Data; boundary=b\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as stranger:
        stranger.sendall(head.encode())
        assert stranger.recv(64).startswith(b"HTTP/1.1 501 ")

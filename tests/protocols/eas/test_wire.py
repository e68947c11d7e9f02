"""What the Go and Java clients do differently, what the Python SDK's tests leave out, and bad input, on the wire."""

import base64
import contextlib
import select
import socket
import struct
import subprocess
import time
import urllib.parse

import pytest
import requests
import websocket
from darkroom_server import Server, binary
from eas_prediction import PredictException
from eas_prediction.queue_types.queueservice_pb2 import AttributesProto, DataFrameListProto, DataFrameProto
from queue_server import CONFIG, SERVICE, TOKEN, client

PROTOBUF = {"Accept": "application/vnd.google.protobuf"}
TIGHT = CONFIG + """max_payload = "1KB"
max_length = 50
max_delivery = 2
[[keys]]
name = "other"
secret = "sk_other"
scopes = ["client"]
tenant = "other"
[endpoints.groups]
kind = "queue"
[endpoints.hasty]
kind = "queue"
queue = { max_idle = "2s", leave_grace = "1s" }
"""
# For what hangs, not for what is slow: a busy machine is no failure.
LIMIT_S = 90


@pytest.fixture(scope="module")
def server():
    with Server(TIGHT) as running:
        yield running


class Queue:
    """One side of the service, as plain HTTP; empty at first."""

    def __init__(self, server, side="", service=SERVICE):
        self.url = f"{server.url}/api/predict/{service}{side}"
        self.delete(_trunc_="true", _index_=int(self.attributes()["stream.lastEntry"]) + 1)

    def call(self, method, headers=None, data=None, **query):
        headers = {"Authorization": TOKEN, **(headers or {})}
        return requests.request(method, self.url, params=query, headers=headers, data=data, timeout=LIMIT_S)

    def put(self, data=b"x", headers=None, **tags):
        answer = self.call("POST", headers, data, **tags)
        assert answer.status_code == 200, answer.text
        return int(answer.text)

    def get(self, headers=None, **query):
        return self.call("GET", headers, **query)

    def commit(self, *indexes, group="eas", data=None, **query):
        query["_indexes_"] = ",".join(map(str, indexes))
        return self.call("PUT", {"X-EAS-QueueService-Redis-Gid": group}, data, **query)

    def delete(self, **query):
        answer = self.call("DELETE", **query)
        assert (answer.status_code, answer.text) == (200, "OK")

    def attributes(self):
        return self.get(_attrs_="true").json()

    def length(self):
        return int(self.attributes()["stream.length"])

    @contextlib.contextmanager
    def watch(self, uid="u", gid="eas", **query):
        query = {"_watch_": "true", "_index_": 0, "_window_": 5, **query}
        url = self.url.replace("http://", "ws://") + "?" + urllib.parse.urlencode(query)
        headers = {
            "Authorization": TOKEN,
            "X-EAS-QueueService-Redis-Uid": uid,
            "X-EAS-QueueService-Redis-Gid": gid,
        }
        connection = websocket.create_connection(url, header=headers, timeout=LIMIT_S)
        try:
            yield connection
        finally:
            connection.shutdown()


def frame(connection):
    """The next item of a watch: always a binary frame."""
    # The server's pings begin a socket's own timeout anew.
    deadline = time.monotonic() + LIMIT_S
    kind, data = connection.recv_data(control_frame=True)
    while kind == websocket.ABNF.OPCODE_PING:
        assert time.monotonic() < deadline
        kind, data = connection.recv_data(control_frame=True)
    assert kind == websocket.ABNF.OPCODE_BINARY, (kind, data)
    item = DataFrameProto()
    item.ParseFromString(data)
    return item


def first_frame(*connections):
    """The next item that any of these watches is sent."""
    ready, _, _ = select.select([connection.sock for connection in connections], [], [], LIMIT_S)
    assert ready, "none of them is sent anything"
    return frame(next(connection for connection in connections if connection.sock is ready[0]))


def indexes(connection, count):
    return [frame(connection).index for _ in range(count)]


def nothing(connection, for_s=0.5):
    connection.settimeout(for_s)
    with pytest.raises(websocket.WebSocketTimeoutException):
        connection.recv()
    connection.settimeout(LIMIT_S)


def eventually(check):
    deadline = time.monotonic() + LIMIT_S
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_put_answers_200_with_the_bare_index_and_the_request_id(server):
    queue = Queue(server)
    answer = queue.call("POST", None, b"abc", task_id="图 1")
    assert answer.status_code == 200
    assert answer.content.isdigit()
    request_id = answer.headers["X-Eas-Queueservice-Request-Id"]
    (item,) = queue.get(_raw_="false", requestId=request_id).json()
    assert item == {
        "index": int(answer.text),
        "tags": {"requestId": request_id, "task_id": "图 1"},
        "data": base64.b64encode(b"abc").decode(),
    }


def test_what_accept_says_decides_between_json_and_protobuf(server):
    queue = Queue(server)
    for _ in range(4):
        queue.put(b"abc")
    for accept in [None, "*/*", "application/x-flatbuffers", "application/protobuf", ";;,"]:
        headers = {"Accept": accept} if accept else {"Accept": None}
        answer = queue.get(headers, _raw_="false", _auto_delete_="false")
        assert answer.headers["Content-Type"].startswith("application/json"), accept
        assert len(answer.json()) == 1
    answer = queue.get(PROTOBUF, _raw_="false", _auto_delete_="false", _length_=3)
    items = DataFrameListProto()
    items.ParseFromString(answer.content)
    assert [item.data for item in items.index] == [b"abc"] * 3
    assert queue.get().content == b"abc", "raw and gone by default"
    eventually(lambda: queue.length() == 3)


def test_attributes_are_texts_also_for_an_empty_queue_and_as_protobuf(server):
    queue = Queue(server)
    last = queue.put()
    queue.delete(_indexes_=last)
    attributes = queue.attributes()
    assert all(isinstance(value, str) for value in attributes.values())
    assert (attributes["stream.length"], attributes["stream.lastEntry"]) == ("0", str(last))
    assert attributes["meta.maxPayloadBytes"] == "1000"
    proto = AttributesProto()
    proto.ParseFromString(queue.get(PROTOBUF, _attrs_="true").content)
    assert proto.attributes["meta.header.user"] == "X-EAS-QueueService-Redis-Uid"
    assert proto.attributes["meta.header.group"] == "X-EAS-QueueService-Redis-Gid"
    with queue.watch(uid="me", foo="bar"):
        attributes = queue.attributes()
        count = int(attributes["consumers.stats.total"])
        assert attributes["consumers.status.total"] == str(count)
        listed = [attributes[f"consumers.list.[{place}]"] for place in range(count)]
        (mine,) = [text for text in listed if text.startswith("Id: eas.me,")]
        assert "Status: Running" in mine and "Window: 5, Slots: 5, AutoCommit: false, Tags: tags[foo=bar]" in mine
    eventually(lambda: any("eas.me" in v and "Leaving" in v for v in queue.attributes().values()))


def waited(queue, timeout):
    """How long an empty queue lets a get wait, in seconds."""
    begun = time.monotonic()
    assert queue.get(_timeout_=timeout).status_code == 204
    return time.monotonic() - begun


def test_nothing_there_is_204_and_a_wait_ends_before_the_clients_own(server):
    queue = Queue(server)
    assert queue.get(requestId="nobody", _raw_="false").status_code == 204
    # A busy machine may spend the difference on the way; it does not each time.
    assert any(1.5 < waited(queue, "2s") < 2 for _ in range(10))
    sdk = client(server)
    assert sdk.get(timeout="1s") == []
    assert sdk.get(timeout="1") == []


def test_a_waiting_get_has_the_item_when_it_comes(server):
    queue = Queue(server)
    with socket.create_connection(("127.0.0.1", server.port)) as waiting:
        path = urllib.parse.urlsplit(queue.url).path
        request = f"GET {path}?_timeout_=10s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {TOKEN}\r\n\r\n"
        waiting.sendall(request.encode())
        queue.put(b"here")
        waiting.settimeout(LIMIT_S)
        answer = b""
        while not answer.endswith(b"here"):
            answer += waiting.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200")


def test_an_item_is_not_lost_with_a_client_that_goes_away(server):
    queue = Queue(server)
    path = urllib.parse.urlsplit(queue.url).path
    request = f"GET {path}?_timeout_=10s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {TOKEN}\r\n\r\n"
    for _ in range(5):
        waiting = socket.create_connection(("127.0.0.1", server.port))
        waiting.sendall(request.encode())
        time.sleep(0.05)
        waiting.close()
    queue.put(b"kept")
    assert queue.get(_timeout_="5s").content == b"kept"


def test_the_newest_is_minus_one_and_an_index_is_where_to_begin(server):
    queue = Queue(server)
    first = [queue.put(str(n).encode()) for n in range(3)][0]
    kept = {"_auto_delete_": "false", "_raw_": "false"}
    assert [i["index"] for i in queue.get(_index_=-1, **kept).json()] == [first + 2]
    assert [i["index"] for i in queue.get(_index_=first + 1, _length_=9, **kept).json()] == [first + 1, first + 2]
    with queue.watch(_index_=-1) as connection:
        nothing(connection)
        assert queue.put() == first + 3
        assert frame(connection).index == first + 3


def test_priority_by_query_and_by_the_header_that_attributes_name(server):
    queue = Queue(server)
    header = queue.attributes()["meta.header.priority"]
    low = queue.put()
    high = queue.put(_priority_=1)
    higher = queue.put(headers={header: "2"})
    assert queue.get(_count_="true", _priority_=1).text == "1"
    assert queue.get(_count_="true").text == "3"
    with queue.watch() as connection:
        assert indexes(connection, 3) == [higher, high, low]


def test_search_tells_who_waits_and_who_is_being_served(server):
    queue = Queue(server)
    first, second = queue.put(), queue.put()
    assert queue.get(_search_="true", _index_=second).json() == {"IsPending": False, "WaitCount": 1}
    with queue.watch(uid="worker", _window_=1) as connection:
        assert frame(connection).index == first
        expected = {"IsPending": True, "WaitCount": 0, "ConsumerId": "worker"}
        assert queue.get(_search_="true", _index_=first).json() == expected
        assert queue.get(_search_="true", _index_=second).json()["WaitCount"] == 0
    assert queue.get(_search_="true", _index_=second + 9).status_code == 404
    assert client(server).search(second)["IsPending"] is False


def test_an_item_without_a_body_goes_with_its_get(server):
    queue = Queue(server)
    queue.put(b"")
    queue.put(b"next")
    got = [queue.get() for _ in range(3)]
    assert [(answer.status_code, answer.content) for answer in got] == [(200, b""), (200, b"next"), (204, b"")]


def test_every_group_gets_every_item_and_a_window_bounds_each(server):
    queue = Queue(server, service="groups")
    first, second, third = (queue.put() for _ in range(3))
    with queue.watch(gid="a", _window_=2) as a, queue.watch(gid="b", uid="v") as b:
        assert indexes(a, 2) == [first, second]
        nothing(a)
        assert indexes(b, 3) == [first, second, third]
        assert queue.commit(first, group="a").content == b"OK"
        assert frame(a).index == third
        assert queue.length() == 3, "the other group has not committed it"
        assert queue.commit(first, group="b").status_code == 200
        assert queue.length() == 2


def test_index_only_frames_have_tags_and_no_data(server):
    queue = Queue(server)
    queue.put(b"large", k="v")
    queue.put(b"other")
    with queue.watch(_index_only_="true", k="v") as connection:
        item = frame(connection)
        assert (item.data, item.tags["k"]) == (b"", "v")
        nothing(connection)


def test_the_same_consumer_takes_over_with_what_it_held(server):
    queue = Queue(server)
    first = queue.put()
    with queue.watch(uid="me") as old:
        assert frame(old).index == first
        with queue.watch(uid="me") as new:
            assert frame(new).index == first
            kind, _ = old.recv_data(control_frame=True)
            assert kind == websocket.ABNF.OPCODE_CLOSE


def test_what_a_lost_consumer_held_goes_to_another_after_a_grace(server):
    queue = Queue(server, service="hasty")
    first, second = queue.put(), queue.put()
    with queue.watch(uid="lost") as lost:
        assert indexes(lost, 2) == [first, second]
    with queue.watch(uid="lost") as back:
        assert indexes(back, 2) == [first, second], "its own at once"
    with queue.watch(uid="other", _window_=9) as other:
        assert indexes(other, 2) == [first, second]


def test_negative_commits_give_to_others_and_too_many_deliveries_end_in_the_rear(server):
    queue = Queue(server)
    index = queue.put(b"poison")
    rear = {"X-EAS-QueueService-Access-Rear": "true"}
    with queue.watch() as connection:
        assert frame(connection).index == index
        assert queue.commit(index, data="_code_=Shutdown&_reason_=bye", _negative_="true").text == "OK"
        for _ in range(2):
            assert frame(connection).index == index
            assert queue.commit(index, data="_code_=500&_reason_=no", _negative_="true").text == "OK"
        nothing(connection)
    eventually(lambda: queue.get(rear, _count_="true").text != "0")
    assert queue.get(rear).content == b"poison"
    assert queue.commit(index, data="_code_=not+a+code", _negative_="true").status_code == 400


def test_an_item_held_too_long_goes_to_another(server):
    queue = Queue(server, service="hasty")
    with queue.watch(uid="slow") as slow:
        index = queue.put()
        assert frame(slow).index == index
        with queue.watch(uid="quick", _window_=1) as quick:
            # It is anybody's again: also that of the one that held it.
            assert first_frame(quick, slow).index == index
            assert queue.commit(index).status_code == 200
    assert queue.length() == 0


def test_a_watch_over_plain_http_is_a_stream_of_lengths_and_frames(server):
    queue = Queue(server)
    expected = [queue.put(b"a"), queue.put(b"b" * 500)]
    query = {"_watch_": "true", "_index_": 0, "_window_": 5, "_auto_commit_": "true"}
    headers = {"Authorization": TOKEN, **PROTOBUF}
    with requests.get(queue.url, params=query, headers=headers, stream=True, timeout=LIMIT_S) as answer:
        assert answer.status_code == 200
        expected.append(queue.put(b"c"))
        for index in expected:
            (length,) = struct.unpack(">I", answer.raw.read(4))
            item = DataFrameProto()
            item.ParseFromString(answer.raw.read(length))
            assert item.index == index
    eventually(lambda: queue.length() <= 1)


def test_a_repeated_put_under_the_clients_own_id_is_the_first_one(server):
    queue = Queue(server)
    first = queue.put(requestId=f"mine-{time.monotonic()}")
    again = queue.call("POST", None, b"x", requestId=queue.get(_raw_="false").json()[0]["tags"]["requestId"])
    assert again.text == str(first)


def test_an_ended_queue_lets_its_watchers_go_and_takes_nothing(server):
    queue = Queue(server, "/sink")
    index = queue.put()
    with queue.watch() as connection:
        assert frame(connection).index == index
        assert queue.call("POST", None, None, _eos_="true").text == "OK"
        answer = queue.call("POST", None, b"x")
        assert (answer.status_code, "ended" in answer.text) == (400, True)
        assert queue.commit(index).status_code == 200
        kind, _ = connection.recv_data(control_frame=True)
        assert kind == websocket.ABNF.OPCODE_CLOSE
    command = [str(binary()), "--server", server.url, "--key", TOKEN, "queues", "reopen", "qservice", "sink"]
    subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=True)
    assert queue.put() > index
    nowhere = f"{server.url}/darkroom/v1/queues/qservice/side/reopen"
    assert requests.post(nowhere, headers={"Authorization": TOKEN}, timeout=LIMIT_S).status_code == 404


def test_bad_input_gets_a_status_and_a_text(server):
    queue = Queue(server)
    index = queue.put()
    unknown = requests.post(f"{server.url}/api/predict/nobody", headers={"Authorization": TOKEN}, timeout=LIMIT_S)
    assert (unknown.status_code, "nobody" in unknown.text) == (404, True)
    for token in ["wrong", None]:
        headers = {"Authorization": token} if token else {}
        refused = requests.get(queue.url, headers=headers, timeout=LIMIT_S)
        assert (refused.status_code, "token" in refused.text) == (401, True)
    bad = [
        ("GET", {"_index_": "-5"}, 400, "index"),
        ("GET", {"_index_": "x"}, 400, "index"),
        ("GET", {"_timeout_": "soon"}, 400, "timeout"),
        ("GET", {"_length_": "-1"}, 400, "length"),
        ("GET", {"_watch_": "true", "_window_": "-1"}, 400, "window"),
        ("GET", {"_watch_": "true", "_window_": "0"}, 400, "window"),
        ("GET", {"_watch_": "true"}, 426, "WebSocket"),
        ("GET", {"_search_": "true", "_index_": "0"}, 400, "index"),
        ("PUT", {"_indexes_": str(index)}, 400, "not pending"),
        ("PUT", {"_indexes_": str(index + 99)}, 400, "no item"),
        ("PUT", {"_indexes_": "1,,2"}, 400, "indexes"),
        ("PUT", {}, 400, "indexes"),
        ("DELETE", {"_trunc_": "true"}, 400, "index"),
        ("POST", {"_priority_": "urgent"}, 400, "priority"),
        ("POST", {f"tag{n}": "x" for n in range(100)}, 400, "tags"),
        ("POST", {"k": "v" * 5000}, 400, "too long"),
        ("PATCH", {}, 405, "method"),
    ]
    for method, query, status, word in bad:
        answer = queue.call(method, **query)
        assert (answer.status_code, word in answer.text) == (status, True), (method, query, answer.text)
        assert answer.headers["X-Eas-Queueservice-Request-Id"]
    assert queue.call("POST", None, b"x" * 1001).status_code == 413
    elsewhere = requests.get(f"{queue.url}/no/such/path", headers={"Authorization": TOKEN}, timeout=LIMIT_S)
    assert elsewhere.status_code == 404
    while queue.length() < 50:
        queue.put()
    full = queue.call("POST", None, b"x")
    assert (full.status_code, "full" in full.text, full.headers["Retry-After"]) == (429, True, "1")


def test_an_accept_that_makes_no_sense_means_json(server):
    queue = Queue(server)
    queue.put(b"x")
    for accept in [";;,,", "application/vnd.google.protobu", "application/x-flatbuffers", "\xff/\xfe", "q=1;" * 500]:
        answer = queue.get({"Accept": accept.encode("latin-1")}, _raw_="false", _auto_delete_="false")
        assert (answer.status_code, answer.json()[0]["data"]) == (200, "eA=="), accept


def test_the_sdks_six_tries_of_what_is_refused_change_nothing(server):
    queue, sdk = Queue(server), client(server)
    while queue.length() < 50:
        queue.put()
    # What stands in the queue; how long each consumer has been idle is told beside it.
    items = lambda: {name: value for name, value in queue.attributes().items() if not name.startswith("consumers.")}  # noqa: E731
    before = items()
    for body, code in [(b"x", "429"), (b"x" * 1001, "413")]:
        with pytest.raises(PredictException) as refused:
            sdk.put(body)
        assert code in str(refused.value), refused.value
    assert items() == before
    queue.delete(_indexes_=before["stream.lastEntry"])
    assert int(sdk.put(b"x")[0]) == int(before["stream.lastEntry"]) + 1


def test_a_put_with_a_million_tags_is_refused_at_once(server):
    query = "&".join(f"t{n}=x" for n in range(1_000_000))
    path = urllib.parse.urlsplit(Queue(server).url).path
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(LIMIT_S)
        head = f"POST {path}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {TOKEN}\r\nContent-Length: 0\r\n\r\n"
        with contextlib.suppress(OSError):
            connection.sendall(head.encode())
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(64).split()[1] in (b"414", b"431", b"400")
    assert requests.get(f"{server.url}/readyz", timeout=LIMIT_S).status_code == 200


def test_large_bodies_come_back_whole_by_get_and_by_watch(server):
    queue = Queue(server, service="groups")
    large = bytes(range(256)) * 2000
    for _ in range(3):
        queue.put(large, requestId="")
    assert queue.get(_auto_delete_="false").content == large
    items = DataFrameListProto()
    items.ParseFromString(queue.get(PROTOBUF, _raw_="false", _length_=2, _auto_delete_="false").content)
    assert [item.data for item in items.index] == [large] * 2
    with queue.watch(_auto_commit_="true", gid="a") as connection:
        assert [frame(connection).data for _ in range(3)] == [large] * 3
    assert queue.get().content == large


def test_queues_are_shown_to_their_tenant_and_counted(server):
    queue = Queue(server)
    queue.put()
    with queue.watch(uid="seen"):
        headers = {"Authorization": TOKEN}
        listed = requests.get(f"{server.url}/darkroom/v1/queues", headers=headers, timeout=LIMIT_S).json()["queues"]
        (mine,) = [q for q in listed if (q["endpoint"], q["side"]) == ("qservice", "input")]
        assert (mine["length"], mine["connected_consumers"], mine["ended"]) == (1, 1, False)
        shown = requests.get(f"{server.url}/darkroom/v1/queues/qservice/input", headers=headers, timeout=LIMIT_S).json()
        (consumer,) = [c for c in shown["consumers"] if c["name"] == "seen"]
        assert (consumer["group"], consumer["connected"], consumer["window"]) == ("eas", True, 5)
        assert [g["name"] for g in shown["groups"]] == ["eas"]
        command = [str(binary()), "--server", server.url, "--key", TOKEN, "queues"]
        for more, words in [([], ["qservice", "input"]), (["show", "qservice"], ["seen", "connected", "group eas"])]:
            printed = subprocess.run([*command, *more], capture_output=True, text=True, timeout=LIMIT_S, check=True)
            assert all(word in printed.stdout for word in words), printed.stdout
    unknown = requests.get(f"{server.url}/darkroom/v1/queues/qservice/side", headers=headers, timeout=LIMIT_S)
    assert unknown.status_code == 404
    for figure in ["items", "pending", "consumers", "lag_seconds"]:
        line = f'darkroom_queue_{figure}{{endpoint="qservice",side="input"}}'
        eventually(lambda line=line: line in requests.get(f"{server.url}/metrics", timeout=LIMIT_S).text)
    other = requests.get(f"{server.url}/darkroom/v1/queues", headers={"Authorization": "sk_other"}, timeout=LIMIT_S)
    assert other.json() == {"queues": []}
    path = f"{server.url}/api/predict/qservice"
    theirs = requests.get(path, params={"_attrs_": "true"}, headers={"Authorization": "sk_other"}, timeout=LIMIT_S)
    assert theirs.json()["stream.lastEntry"] == "0", "another tenant has a queue of its own"


def test_services_that_run_workflows_say_where_they_take_them(server):
    url = f"{server.url}/api/predict/default"
    headers = {"Authorization": TOKEN}
    for method, query in [("POST", {}), ("PUT", {"_indexes_": 1}), ("GET", {"_watch_": "true"})]:
        accept = {**headers, **PROTOBUF}
        answer = requests.request(method, url, params=query, headers=accept, data=b"x", timeout=LIMIT_S)
        assert (answer.status_code, "api_prompt" in answer.text) == (400, True), answer.text
    for body in [b"", b"[]", b"{", b'{"1": {"class_type": "NoSuchNode", "inputs": {}}}']:
        answer = requests.post(f"{url}/api_prompt", headers=headers, data=body, timeout=LIMIT_S)
        assert answer.status_code == 400 and answer.text, body
    wrong = requests.post(f"{server.url}/api/predict/{SERVICE}/api_prompt", headers=headers, data=b"{}", timeout=LIMIT_S)
    assert wrong.status_code == 400

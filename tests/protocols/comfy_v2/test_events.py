"""The stream of a job's events: order, pace, late comers, and its bounds."""

import contextlib
import threading
import time
import uuid

import httpx
import pytest

from darkroom_server import Server
from v2 import CONFIG, LIMIT_S, Api, engine, parsed, picture, plain, sleep, through, unbase64

UUID = uuid.uuid4


def check_order(events, terminal):
    """What every stream keeps to."""
    names = [name for name, _ in events if name]
    assert set(names) <= {"status", "progress", "preview", "output"}, names
    assert names[-1] == "status" and events[-1][1] == {"status": terminal, "queue_position": None}, events[-1]
    statuses = [data["status"] for name, data in events if name == "status"]
    order = ["queued", "running", "canceling", terminal]
    assert [order.index(status) for status in statuses] == sorted(order.index(status) for status in statuses), statuses
    assert statuses.count(terminal) == 1
    values = [data["value"] for name, data in events if name == "progress"]
    assert values == sorted(values) and all(0 <= value <= 1 for value in values), values
    for name, data in events:
        if name == "progress":
            assert {"value", "nodes_done", "nodes_total"} <= set(data)
            assert all(isinstance(data.get(key), (int, type(None))) for key in ("nodes_done", "nodes_total", "step", "steps"))
            assert isinstance(data.get("current_node"), (str, type(None)))
    return names


def test_a_whole_life_is_seen_in_order(tests_api):
    api = tests_api
    began = time.monotonic()
    job = api.accepted(sleep(3, str(UUID()), steps=30))["id"]
    events = list(api.events(job))
    took = time.monotonic() - began
    names = check_order(events, "succeeded")
    assert names[0] == "status" and names.count("output") == 1 and names[-2] == "output"
    told = [data for name, data in events if name == "output"]
    assert told[0]["id"] == api.job(job)["outputs"][0]["id"]
    sleeping = [data for name, data in events if name == "progress" and data.get("current_node") == "5"]
    assert sleeping and {one["current_node_class"] for one in sleeping} == {"TestSleep"}
    assert any(one["steps"] == 30 and one["message"] == f"TestSleep {one['step']}/30" for one in sleeping)
    # The steps are shown about twice a second, however long they took, besides what is shown at once and at the end.
    assert names.count("progress") <= 2 * took + 3, (names, took)
    assert events[-3][1]["value"] == 1.0


def test_a_poll_says_what_the_stream_says(tests_api):
    api = tests_api
    job = api.accepted(sleep(20, str(UUID()), steps=100))["id"]
    for name, data in api.events(job):
        if name == "progress" and (data.get("step") or 0) > 2:
            break
    polled = api.job(job)
    assert polled["status"] == "running" and polled["progress"]["current_node_class"] == "TestSleep", polled
    assert polled["progress"]["value"] >= data["value"] and polled["progress"]["nodes_total"] == 3
    events = api.events(job)
    first = [next(events), next(events)]
    assert first[0] == ("status", {"status": "running", "queue_position": None})
    assert first[1][0] == "progress" and first[1][1]["value"] >= data["value"]
    api("POST", f"/jobs/{job}/cancel")
    rest = list(events)
    assert check_order(first + rest, "canceled")[-1] == "status"
    assert "canceling" in [data["status"] for name, data in rest if name == "status"]


def test_a_preview_is_shown_and_shown_again_to_who_connects(tests_api):
    api = tests_api
    graph = through("TestPreview", str(UUID()), count=3)
    # The run goes on after it, until it is cancelled.
    graph["6"] = {"class_type": "TestSleep", "inputs": {"image": ["5", 0], "seed": str(UUID()), "seconds": 120, "steps": 10}}
    graph["9"]["inputs"]["images"] = ["6", 0]
    job = api.accepted(graph)["id"]
    shown = [next(data for name, data in api.events(job) if name == "preview") for _ in range(2)]
    assert shown[0] == shown[1]
    assert shown[0]["node_id"] == "5" and shown[0]["content_type"] == "image/jpeg"
    size, ((red, green, blue),) = picture(unbase64(shown[0]["data_base64"]))
    assert size == (16, 16) and all(abs(a - b) < 8 for a, b in zip((red, green, blue), (0x33, 0x66, 0x99)))
    api("POST", f"/jobs/{job}/cancel")
    api.wait(job)


def test_who_comes_late_gets_the_outputs_and_the_end(api):
    job = api.wait(api.accepted(plain(0x445566))["id"])
    for _ in range(2):
        events = list(api.events(job["id"]))
        assert [name for name, _ in events] == ["output", "status"]
        del events[0][1]["url"], events[0][1]["url_expires_at"]
        shown = {k: v for k, v in job["outputs"][0].items() if k not in ("url", "url_expires_at")}
        assert events[0][1] == shown


def test_a_run_out_of_the_cache_has_its_output_before_the_end(api):
    graph = plain(0x556677, prefix="cached")
    for _ in range(3):
        events = list(api.events(api.accepted(graph)["id"]))
        names = check_order(events, "succeeded")
        assert names.count("output") == 1 and names[-2] == "output"


def test_places_in_the_line_are_told_as_they_change(tests_api):
    api = tests_api
    first, second, third = [api.accepted(sleep(120, str(UUID())))["id"] for _ in range(3)]
    api.wait(first, "running")
    events = api.events(third)
    assert next(events) == ("status", {"status": "queued", "queue_position": 2})
    api("POST", f"/jobs/{second}/cancel")
    moved = next(event for event in events if event[0] == "status")
    assert moved == ("status", {"status": "queued", "queue_position": 1})
    api("POST", f"/jobs/{first}/cancel")
    assert next(event for event in events if event[0] == "status")[1]["status"] == "running"
    api("POST", f"/jobs/{third}/cancel")
    assert list(events)[-1] == ("status", {"status": "canceled", "queue_position": None})


def test_silence_is_broken_by_comments_and_headers_forbid_buffering(tests_api):
    api = tests_api
    # One node without steps: nothing is to be told of it while it runs.
    job = api.accepted(sleep(60, str(UUID()), steps=1))["id"]
    api.wait(job, "running")
    with api.http.stream("GET", f"{api.base}/api/v2/jobs/{job}/events", timeout=LIMIT_S) as answer:
        assert answer.headers["cache-control"] == "no-cache" and answer.headers["x-accel-buffering"] == "no"
        began = time.monotonic()
        for name, data in parsed(answer.iter_lines()):
            if name is None:
                assert data == "keepalive"
                break
        else:
            pytest.fail(f"no comment in {time.monotonic() - began} s")
    api("POST", f"/jobs/{job}/cancel")


def test_a_caller_has_so_many_streams_and_polls_all_the_same():
    with Server("max_event_streams = 8\n" + CONFIG) as server:
        api, other = Api(f"{server.url}/e/tests"), Api(f"{server.url}/e/tests", "sk_other")
        job = api.accepted(sleep(120, "a"))["id"]
        others = other.accepted(sleep(120, "b"))["id"]
        with contextlib.ExitStack() as open_streams:
            def connect(api, job):
                stream = api.http.stream("GET", f"{api.base}/api/v2/jobs/{job}/events", timeout=LIMIT_S)
                return open_streams.enter_context(stream)

            for _ in range(8):
                assert connect(api, job).status_code == 200
            refused = connect(api, job)
            refused.read()
            api.refused(429, "too_many_streams", refused)
            assert connect(other, others).status_code == 200, "each caller by itself"
            assert api.job(job)["id"] == job
        # Those that left make room.
        deadline = time.monotonic() + LIMIT_S
        status = 429
        while status == 429:
            assert time.monotonic() < deadline
            with api.http.stream("GET", f"{api.base}/api/v2/jobs/{job}/events", timeout=LIMIT_S) as answer:
                status = answer.status_code
        assert status == 200
        for caller, one in ((api, job), (other, others)):
            caller("POST", f"/jobs/{one}/cancel")


def test_callers_without_a_key_are_counted_by_their_addresses():
    with Server(f"max_event_streams = 1\n[endpoints.tests]\n{engine()}") as server:
        api = Api(f"{server.url}/e/tests", None)
        job = api.accepted(sleep(120, "a"))["id"]

        def connect(streams, address):
            http = streams.enter_context(httpx.Client(transport=httpx.HTTPTransport(local_address=address)))
            stream = http.stream("GET", f"{api.base}/api/v2/jobs/{job}/events", timeout=LIMIT_S)
            return streams.enter_context(stream).status_code

        with contextlib.ExitStack() as streams:
            addresses = ["127.0.0.1", "127.0.0.1", "127.0.0.2"]
            assert [connect(streams, address) for address in addresses] == [200, 429, 200]
        api("POST", f"/jobs/{job}/cancel")


def test_many_streams_of_one_job_end_alike(tests_api):
    api = tests_api
    job = api.accepted(sleep(2, str(UUID())))["id"]
    seen, errors = [], []

    def watch():
        try:
            seen.append(list(Api(api.base).events(job)))
        except Exception as error:
            errors.append(error)

    watchers = [threading.Thread(target=watch, daemon=True) for _ in range(30)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(LIMIT_S)
    assert not errors and len(seen) == 30
    for events in seen:
        assert check_order(events, "succeeded").count("output") == 1

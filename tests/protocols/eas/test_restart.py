"""2,000 puts against a watcher with window 5 while the server restarts: every item is seen, and each put is one item."""

import threading
import time
import uuid

import pytest
from darkroom_server import Server
from queue_server import CONFIG, client, insist, kill_child, stop_and_start

PUTS = 2000
RESTARTS = 3
LIMIT_S = 240


def put_all(server, sent):
    queue = client(server)
    queue.set_timeout(30000)
    for number in range(PUTS):
        # A put whose answer was lost is repeated under the same id, and is the same item.
        request_id = str(uuid.uuid4())
        index, answered = insist(queue.put, str(number), {"requestId": request_id})
        assert answered == request_id
        sent[int(index)] = str(number)


def consume(consumer, watcher, seen):
    for item in watcher.run():
        seen.setdefault(item.index, item.data.decode())
        insist(consumer.commit, item.index)
        if len(seen) == PUTS:
            return


@pytest.mark.parametrize("restart", [kill_child, stop_and_start])
def test_every_item_is_seen_through_restarts(restart):
    with Server(CONFIG) as server:
        sent, seen = {}, {}
        consumer = client(server)
        consumer.set_timeout(30000)
        watcher = consumer.watch(0, 5, auto_commit=False)
        producer = threading.Thread(target=put_all, args=(server, sent), daemon=True)
        reader = threading.Thread(target=consume, args=(consumer, watcher, seen), daemon=True)
        reader.start()
        producer.start()
        deadline = time.monotonic() + LIMIT_S
        for after in range(1, RESTARTS + 1):
            while len(seen) < PUTS * after // (RESTARTS + 1):
                assert time.monotonic() < deadline, (len(sent), len(seen), server.log()[-3000:])
                time.sleep(0.01)
            restart(server)
        for thread in (producer, reader):
            thread.join(max(1, deadline - time.monotonic()))
        assert len(sent) == PUTS, "each put was answered once, with an index of its own"
        assert seen == sent
        assert client(server).attributes()["stream.length"] == "0"


def test_a_restart_of_the_server_is_no_delivery():
    with Server(CONFIG) as server:
        consumer = client(server)
        consumer.put(b"held")
        # More often than an item is delivered before it goes to the rear.
        for _ in range(7):
            watcher = consumer.watch(0, 1, auto_commit=False)
            assert next(iter(watcher.run())).data == b"held"
            stop_and_start(server)
            watcher.close()
        watcher = consumer.watch(0, 1, auto_commit=False)
        item = next(iter(watcher.run()))
        assert item.data == b"held"
        insist(consumer.commit, item.index)
        watcher.close()
        assert consumer.attributes()["stream.length"] == "0"

"""ComfyUI's own page in a browser: opened while nothing runs."""

import json
import time
import urllib.request

from darkroom_server import Server, binary

KEY = """
[[keys]]
name = "artist"
secret = "sk_artist"
scopes = ["client"]
"""


def endpoint(frontend, more=""):
    return f'[endpoints.default]\nfrontend = "{frontend}"\n{more}\n'


def get(server, path, key=None):
    request = urllib.request.Request(server.url + path)
    if key:
        request.add_header("authorization", f"Bearer {key}")
    return urllib.request.urlopen(request, timeout=60).read().decode()


def test_the_page_opens_with_zero_instances_and_complains_of_nothing(tab, frontend):
    with Server(endpoint(frontend)) as server:
        tab.page.goto(f"{server.url}/e/default")
        tab.graph_is_drawn()
        assert tab.page.url == f"{server.url}/e/default/"
        tab.page.wait_for_load_state("networkidle")
        assert tab.complaints == []
        assert get(server, "/darkroom/v1/instances") == '{"instances":[]}'


def test_a_browser_without_a_session_logs_in_and_comes_back(tab, frontend):
    with Server(KEY + endpoint(frontend)) as server:
        tab.page.goto(f"{server.url}/e/default/")
        assert tab.page.url.startswith(f"{server.url}/login?next=")
        tab.page.fill("input[name=key]", "sk_artist")
        tab.page.click("button")
        tab.graph_is_drawn()
        assert tab.page.url == f"{server.url}/e/default/"
        assert tab.complaints == []


GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 0x3366CC}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "browser"}},
}


def test_a_workflow_that_is_queued_in_the_page_runs_and_its_picture_appears(tab, frontend):
    with Server(endpoint(frontend)) as server:
        tab.page.goto(f"{server.url}/e/default/")
        tab.graph_is_drawn()
        tab.page.evaluate("graph => window.app.loadApiJson(graph, 'test')", GRAPH)
        tab.page.wait_for_function("() => window.app.graph.nodes.length === 2")
        tab.page.evaluate("() => window.app.queuePrompt(0, 1)")
        size = tab.page.wait_for_function(
            """() => {
                const shown = window.app.graph.nodes.flatMap(node => node.imgs ?? []).find(image => image.naturalWidth > 0);
                return shown && [shown.naturalWidth, shown.naturalHeight];
            }"""
        )
        assert size.json_value() == [96, 64]
        history = json.loads(get(server, "/history"))
        assert [entry["status"]["status_str"] for entry in history.values()] == ["success"]
        # The page that is opened anew finds what ran, as the page itself asks for it.
        tab.page.reload()
        tab.graph_is_drawn()
        ended = tab.page.evaluate("async () => (await (await window.app.api.fetchApi('/jobs?status=completed')).json()).jobs")
        assert [job["id"] for job in ended] == list(history)
        assert tab.complaints == []


# On the test engine, whose sleeping node tells its progress.
TEST_NODES = f"""command = [{json.dumps(str(binary()))}, "engine", "--test-nodes", "--listen", "127.0.0.1:{{port}}",
  "--input-directory", "{{input_dir}}", "--output-directory", "{{output_dir}}", "--temp-directory", "{{temp_dir}}",
  "--user-directory", "{{user_dir}}"]"""


def sleeping(seed):
    return {
        **GRAPH,
        "5": {"class_type": "TestSleep", "inputs": {"image": ["1", 0], "seconds": 4.0, "steps": 10, "seed": seed}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "browser"}},
    }


def nodes_are_known(server):
    """Runs a graph, and waits until the endpoint knows what its instances can do: they tell beside their first job."""
    body = json.dumps({"prompt": sleeping("first")}).encode()
    request = urllib.request.Request(server.url + "/prompt", body, {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=60).read()
    deadline = time.monotonic() + 120
    while get(server, "/object_info/TestSleep") == "{}":
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.2)


def test_the_progress_that_the_page_shows_rises(tab, frontend):
    with Server(endpoint(frontend, TEST_NODES)) as server:
        nodes_are_known(server)
        tab.page.goto(f"{server.url}/e/default/")
        tab.graph_is_drawn()
        tab.page.evaluate("graph => window.app.loadApiJson(graph, 'test')", sleeping("second"))
        tab.page.wait_for_function("() => window.app.graph.nodes.length === 3")
        # The page writes it into its title; each that it ever showed is kept.
        tab.page.evaluate(
            """() => {
                window.titles = [];
                new MutationObserver(() => window.titles.push(document.title))
                    .observe(document.querySelector("title"), {childList: true, characterData: true, subtree: true});
                return window.app.queuePrompt(0, 1);
            }"""
        )
        tab.page.wait_for_function("() => window.app.graph.nodes.some(node => node.imgs?.some(image => image.naturalWidth > 0))")
        shown = [title.split("%")[1].strip("][") for title in tab.page.evaluate("() => window.titles") if "TestSleep" in title]
        values = [int(value) for value in shown if value.isdigit()]
        assert len(set(values)) > 1 and values == sorted(values), tab.page.evaluate("() => window.titles")
        assert tab.complaints == []

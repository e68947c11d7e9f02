"""ComfyUI's own page in a browser: opened while nothing runs."""

import json
import subprocess
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


def closes_templates(tab):
    """Who opens the page for the first time is offered templates."""
    tab.page.wait_for_load_state("networkidle")
    tab.page.wait_for_selector("[role=dialog]")
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_selector("[role=dialog]", state="detached")


def queues(tab, server, graph, key=None):
    """Queues a graph in the page, as its button does; waits until history has one more."""
    before = len(json.loads(get(server, "/history", key)))
    tab.page.evaluate("graph => window.app.loadApiJson(graph, 'test')", graph)
    tab.page.wait_for_function("count => window.app.graph.nodes.length === count", arg=len(graph))
    tab.page.click("[data-testid=queue-button]")
    deadline = time.monotonic() + 120
    while len(json.loads(get(server, "/history", key))) == before:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def ended_jobs(tab):
    """Opens the list of jobs; the ids that it shows."""
    if not tab.page.query_selector("[data-testid=job-assets-list]"):
        tab.page.click("[data-testid=queue-overlay-toggle]")
    tab.page.wait_for_selector("[data-testid=job-assets-list] [data-job-id]")
    return tab.page.eval_on_selector_all("[data-testid=job-assets-list] [data-job-id]", "all => all.map(one => one.dataset.jobId)")


def test_after_stop_and_restart_the_page_shows_the_same_history_its_pictures_and_its_workflows(tab, frontend):
    with Server(endpoint(frontend)) as server:
        tab.page.goto(f"{server.url}/e/default/")
        tab.graph_is_drawn()
        closes_templates(tab)
        for red in (0x10, 0x20, 0x30):
            graph = json.loads(json.dumps(GRAPH))
            graph["1"]["inputs"]["color"] = red << 16
            queues(tab, server, graph)
        before = ended_jobs(tab)
        assert len(before) == 3

        # The page is left, so that it does not complain of a server that is away.
        tab.page.goto("about:blank")
        assert server.stop() == 0
        server.start()
        assert get(server, "/darkroom/v1/instances") == '{"instances":[]}'
        tab.page.goto(f"{server.url}/e/default/")
        tab.graph_is_drawn()
        tab.page.wait_for_load_state("networkidle")
        assert ended_jobs(tab) == before
        oldest = f"[data-job-id='{before[-1]}']"
        width = "one => document.querySelector(one + ' img')?.naturalWidth"
        tab.page.wait_for_function(f"one => ({width})(one) > 0", arg=oldest)
        assert tab.page.evaluate(width, oldest) == 96

        # "Open workflow" of the oldest gives its graph back: another colour than the one that was left open.
        tab.page.click(oldest, button="right")
        tab.page.click("[role=menuitem]:has-text('Open as workflow')")
        tab.page.wait_for_function(
            "color => window.app.graph.nodes.find(node => node.type === 'EmptyImage')?.widgets.find(one => one.name === 'color').value == color",
            arg=0x10 << 16,
        )
        types = tab.page.evaluate("() => window.app.graph.nodes.map(node => node.type).sort()")
        assert types == ["EmptyImage", "SaveImage"]
        linked = tab.page.evaluate("() => window.app.graph.nodes.find(node => node.type === 'SaveImage').inputs.some(input => input.link != null)")
        assert linked
        assert get(server, "/darkroom/v1/instances") == '{"instances":[]}', "nothing of it woke anything"
        assert tab.complaints == []


def test_the_link_of_darkroom_open_lets_a_browser_in_to_queue_and_hear(tab, frontend):
    with Server(KEY + endpoint(frontend)) as server:
        command = [str(binary()), "open", "default", "--print", "--json", "--key", "sk_artist", "--server", server.url]
        opened = subprocess.run(command, capture_output=True, check=True, timeout=60)
        tab.page.goto(json.loads(opened.stdout)["url"])
        tab.graph_is_drawn()
        assert tab.page.url == f"{server.url}/e/default/"
        closes_templates(tab)
        queues(tab, server, GRAPH, key="sk_artist")
        # Only the socket, opened with the same cookie, tells the page of the picture.
        tab.page.wait_for_function("() => window.app.graph.nodes.some(node => node.imgs?.some(image => image.naturalWidth > 0))")
        assert tab.complaints == []

"""The Python SDK, unmodified, knowing a base address and a key: every public method, plain and asyncio, at the root and below a
prefix."""

import asyncio
import inspect
import io
import uuid

import comfy_sdk
import pytest
from comfy_sdk import AsyncComfy, Comfy, OutputReady, Progress, StatusChange
from comfy_sdk.exceptions import ComfyError, IdempotencyKeyReuse, InvalidWorkflow, JobFailed, MissingAsset, NotFound, WorkflowFormatUi

from v2 import KEY, picture, plain, sleep, through

# Called by a test below, plain and asyncio; one that is missing here fails.
USED = {
    "Comfy": {"close", "submit", "run", "list_jobs"},
    "Workflow": {"set_input", "remove_node"},
    "WorkflowFactory": {"from_file", "from_json", "from_str"},
    "JobFactory": {"get"},
    "Job": {
        "id", "status", "outputs", "error", "metadata", "get_outputs", "refresh", "wait", "result", "cancel", "get_workflow",
        "events",
    },
    "Output": {
        "node_id", "name", "type", "id", "size_bytes", "content_type", "job_id", "to_file", "to_stream", "to_bytes",
        "get_download_url",
    },
}


@pytest.fixture(params=["", "/e/default"], ids=["root", "prefix"])
def base(server, request, monkeypatch):
    """The embedded engine's endpoint, in the SDK's only setting."""
    return use(monkeypatch, server.url + request.param)


@pytest.fixture
def tests_base(server, monkeypatch):
    """The endpoint whose nodes sleep and fail."""
    return use(monkeypatch, f"{server.url}/e/tests")


def use(monkeypatch, base):
    monkeypatch.setenv("COMFY_BASE_URL", base)
    monkeypatch.setenv("COMFY_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return base


def public(of):
    return {name for name, _ in inspect.getmembers(of) if not name.startswith("_")}


def classes():
    """The classes of the SDK that speak this protocol; `Client.models` speaks to another product elsewhere."""
    from comfy_sdk import assets, jobs, outputs, workflows

    found = {"Comfy": Comfy, "AsyncComfy": AsyncComfy}
    for module in (assets, jobs, outputs, workflows):
        for name, of in inspect.getmembers(module, inspect.isclass):
            if of.__module__ == module.__name__ and not name.startswith("_"):
                found[name] = of
    return found


def test_every_public_method_is_used_here():
    from test_assets import USED as ASSETS_USED

    used = {**USED, **ASSETS_USED}
    plain_data = {"JobWorkflow", "JobSummary", "DownloadUrl"}
    for name, of in classes().items():
        if name in plain_data:
            continue
        twin = name.removeprefix("Async")
        members = public(of) - {"aclose"}
        assert members - used[twin] == set(), f"{name} has grown: {members - used[twin]}"


def test_a_program_submits_follows_and_downloads(base, tmp_path):
    (tmp_path / "workflow.json").write_text(str(plain(0x123456)).replace("'", '"'), encoding="utf-8")
    with Comfy(client_info="tests") as client:
        workflow = client.workflows.from_file(tmp_path / "workflow.json")
        extra = {**plain(0x123456), "extra": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
        changed = client.workflows.from_json(extra)
        changed.set_input("1", "color", 0x654321)
        changed.remove_node("extra")
        job = client.submit(workflow, metadata={"client": "acme 图"}, idempotency_key=str(uuid.uuid4()), api_key="comfyui-x")
        assert job.status == "queued" and job.metadata == {"client": "acme 图"} and job.error is None
        seen = list(job.events())
        assert isinstance(seen[-1], StatusChange) and seen[-1].status == "succeeded"
        assert any(isinstance(event, OutputReady) for event in seen[:-1])
        again = client.jobs.get(job.id)
        assert again.wait(timeout=60).status == "succeeded" and again.result().id == job.id == again.refresh().id
        (output,) = again.get_outputs("9")
        assert again.get_outputs("1") == [] and again.outputs[0].id == output.id
        assert (output.node_id, output.type, output.content_type, output.job_id) == ("9", "image", "image/png", job.id)
        data = output.to_bytes()
        assert len(data) == output.size_bytes and picture(data) == ((16, 16), [(0x12, 0x34, 0x56)])
        assert output.to_file(tmp_path / output.name).read_bytes() == data
        stream = io.BytesIO()
        assert output.to_stream(stream) == len(data) and stream.getvalue() == data
        assert output.to_bytes(range=(2, 5)) == data[2:6]
        assert output.get_download_url().url == f"{base}/api/v2/assets/{output.id}/content"
        told = again.get_workflow()
        assert told.format == "api" and told.graph["1"]["inputs"]["color"] == 0x123456
        assert again.cancel().status == "succeeded"
        done = client.run(changed, timeout=120)
        assert picture(done.outputs[0].to_bytes())[1] == [(0x65, 0x43, 0x21)]
        assert client.run(client.workflows.from_str(changed_text(0x010203))).status == "succeeded"


def changed_text(colour):
    return str(plain(colour)).replace("'", '"')


def test_the_same_with_asyncio(base, tmp_path):
    async def program():
        async with AsyncComfy(client_info="tests") as client:
            workflow = client.workflows.from_json(plain(0x234567))
            job = await client.submit(workflow, metadata={"loop": "yes"})
            assert job.status == "queued" and job.metadata == {"loop": "yes"} and job.error is None
            seen = [event async for event in job.events()]
            assert isinstance(seen[-1], StatusChange) and seen[-1].status == "succeeded"
            assert any(isinstance(event, OutputReady) for event in seen[:-1])
            again = await client.jobs.get(job.id)
            assert (await again.wait(timeout=60)).status == "succeeded"
            assert (await again.result()).id == (await again.refresh()).id == job.id
            (output,) = again.get_outputs("9")
            assert again.outputs[0].id == output.id and output.job_id == job.id and output.node_id == "9"
            assert (output.type, output.content_type) == ("image", "image/png")
            data = await output.to_bytes()
            assert len(data) == output.size_bytes and picture(data)[1] == [(0x23, 0x45, 0x67)]
            assert (await output.to_file(tmp_path / output.name)).read_bytes() == data
            stream = io.BytesIO()
            assert await output.to_stream(stream) == len(data) and stream.getvalue() == data
            assert await output.to_bytes(range=(0, 7)) == data[:8]
            assert (await output.get_download_url()).url.startswith(base)
            assert (await again.get_workflow()).format == "api"
            assert (await again.cancel()).status == "succeeded"
            assert (await client.run(workflow, timeout=120)).status == "succeeded"
            found = [one.id async for one in client.list_jobs(metadata={"loop": "yes"}, limit=1)]
            assert job.id in found and len(found) == len(set(found))
            await client.aclose()

    asyncio.run(program())


def test_a_long_job_is_seen_and_ended(tests_base):
    with Comfy() as client:
        job = client.submit(client.workflows.from_json(sleep(120, str(uuid.uuid4()), steps=300)))
        kinds = []
        for event in job.events():
            kinds.append(type(event))
            if isinstance(event, Progress) and event.step:
                assert event.nodes_total == 3 and event.current_node == "5" and 0 < event.value < 1
                assert job.cancel().status in ("canceling", "canceled")
                break
        assert kinds[0] is StatusChange
        assert job.wait(timeout=120).status == "canceled"
        with pytest.raises(JobFailed):
            job.result()


def test_failures_are_the_sdks_own_errors(server, tests_base, monkeypatch):
    with Comfy() as client:
        with pytest.raises(JobFailed) as failed:
            client.run(client.workflows.from_json(through("TestRaise", str(uuid.uuid4()), message="no luck")))
        assert failed.value.code == "node_execution_error" and "no luck" in str(failed.value.error.message)
        with pytest.raises(NotFound):
            client.jobs.get(str(uuid.uuid4()))
        with pytest.raises(WorkflowFormatUi):
            client.submit(client.workflows.from_json({"nodes": [], "links": []}))
        with pytest.raises(InvalidWorkflow):
            client.submit(client.workflows.from_json({}))
        reference = {"__type": "core/ASSET", "info": {"id": str(uuid.uuid4())}}
        with pytest.raises(MissingAsset):
            client.submit(client.workflows.from_json({"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}))
        with pytest.raises(ComfyError) as wrong:
            client.submit(client.workflows.from_json(plain()), metadata={"a b": "c"})
        assert wrong.value.code == "metadata_invalid"
        with pytest.raises(ComfyError) as wrong:
            list(client.list_jobs(metadata={"a b": "c"}))
        assert wrong.value.code == "invalid_metadata_filter"
        key = str(uuid.uuid4())
        client.submit(client.workflows.from_json(plain()), idempotency_key=key)
        with pytest.raises(IdempotencyKeyReuse):
            client.submit(client.workflows.from_json(plain()), idempotency_key=key)
    monkeypatch.setenv("COMFY_API_KEY", "sk_wrong")
    with Comfy() as client, pytest.raises(ComfyError) as wrong:
        client.submit(client.workflows.from_json(plain()))
    assert wrong.value.code == "unauthorized"


def test_lists_are_read_to_their_end(base):
    run = uuid.uuid4().hex
    with Comfy() as client:
        ids = [client.submit(client.workflows.from_json(plain(n)), metadata={"run": run}).id for n in range(5)]
        for limit in (1, 2, 5, None):
            found = list(client.list_jobs(metadata={"run": run}, limit=limit))
            assert [one.id for one in found] == ids[::-1]
        assert all(one.create_time and one.update_time and one.deployment_id == "default" for one in found)
        assert set(ids) <= {one.id for one in client.list_jobs(limit=100)}


def test_the_version_is_the_one_that_was_studied():
    assert comfy_sdk.__version__ == "0.5.0"

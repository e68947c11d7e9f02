"""What the vendor itself publishes beside its SDK: its integration test, unmodified, and its OpenAPI document."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from v2 import KEY

LIMIT_S = 300


@pytest.mark.parametrize("prefix", ["", "/e/default"], ids=["root", "prefix"])
def test_the_sdks_integration_test_passes_as_it_is(server, sdist, prefix, tmp_path):
    report = tmp_path / "report.txt"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path),
         "-rA", str(sdist / "tests" / "integration" / "test_gateway_e2e.py")],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env={**{k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
             "COMFY_BASE_URL": server.url + prefix, "COMFY_API_KEY": KEY},
    )
    report.write_text(done.stdout, encoding="utf-8")
    # The last one is expected to fail by its authors, whose own gateway does not take asset handles; ours does.
    assert done.returncode == 0 and "3 passed, 1 xpassed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]


# Where the document and this server differ, and the words of the document, or of the official proxy's own tests, on which
# each difference rests. Everything else that is found is a defect.
EXCEPTIONS = {
    ("ST103", "POST /api/v2/jobs"): "400 for a body that is no JSON: the official proxy answers so, and its tests ask for it",
    ("ST103", "POST /api/v2/assets/from-hash"): "400 for a body that is no JSON, which no declared answer fits",
    ("ST202", "POST /api/v2/jobs"): "postJobs: 'Validation is synchronous: graph structure, unknown node classes, and asset references'",
    ("ST202", "POST /api/v2/assets"): "postAssets, 422: 'validation failure', of a path that leaves its folder",
    ("ST105", "GET /api/v2/assets/{id}/content"): "getAssetContent: 'Serves the bytes directly'; their type is that of the asset",
    ("ST205", "OPTIONS /api/v2/jobs"): "`GET /api/v2/jobs` is no route of the document, and called by the SDK 0.5.0 that brings it",
}
assert len(EXCEPTIONS) <= 10


def test_the_official_document_holds(server, sdist, tmp_path):
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).with_name("schemathesis")), "run", str(sdist / "spec" / "openapi.yaml"),
         "-u", server.url, "-H", f"Authorization: Bearer {KEY}", "--phases", "examples,coverage,fuzzing", "-n", "15",
         "--seed", "1", "-w", "2", "--request-timeout", "30", "--continue-on-failure", "--no-color",
         # A stream has no end of its own; what methods a route does not take is asked by test_refusals.py.
         "--exclude-operation-id", "getJobEvents", "--exclude-checks", "unsupported_method",
         "--suppress-health-check", "all", "--generation-database", "none", "--report", "json", "--report-dir", str(tmp_path)],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env={k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
    )
    (file,) = tmp_path.glob("*.json")
    report = json.loads(file.read_text(encoding="utf-8"))
    told = done.stdout[-8000:]
    assert report["complete"] and not report["errors"] and report["operations"]["tested"] == 10, told
    assert report["test_cases"]["generated"] > 100, told
    found = {(failure["code"], operation) for failure in report["failures"] for operation in operations(failure)}
    assert not found - set(EXCEPTIONS), told
    # How far the search gets is not the same everywhere; that much is found by the document's own examples.
    assert found, "nothing at all is found: does it look?"


def operations(failure):
    return [one["label"] if isinstance(one, dict) else one for one in failure["operations"]]

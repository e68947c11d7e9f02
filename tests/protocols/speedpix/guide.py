"""The programs that the vendor prints: the guide comes with the SDK's package, and is read from where pip put it.

Nothing in them is changed but what stands for the reader's own: address, keys, workflow id, resource id. Each is run as it is
printed, and once more with every call by its counterpart for asyncio, which the guide says each has.
"""

import ast
import importlib.metadata
import re

# What a block supposes that an earlier one began with.
CLIENT = "import os\nimport asyncio\nfrom speedpix import Client\n"
# By a part of the heading that a block stands under, and which of its blocks it is.
BLOCKS = {
    "quick_start": ("最简单的开始方式", 0, ""),
    "resources": ("配置方式", 0, ""),
    "clients": ("客户端创建方式", 0, CLIENT),
    "direct_run": ("方法 1：", 0, ""),
    "global_function": ("方法 2：", 0, ""),
    "background": ("方法 3：", 0, ""),
    "predictions": ("方法 4：", 0, ""),
    "files": ("自动文件上传", 0, ""),
    "strategies": ("文件编码策略", 0, CLIENT),
    "upload": ("手动文件上传", 0, CLIENT),
    "asyncio": ("异步支持", 0, ""),
    "errors": ("错误处理", 0, ""),
    "faq_background": ("如何处理长时间运行的任务", 0, CLIENT + "client = Client()\n"),
    "faq_many": ("如何同时运行多个任务", 0, CLIENT + "client = Client()\n"),
}
# Those that are written for asyncio.
ASYNC = {"asyncio", "faq_many"}
# Files that they open.
FILES = ["path/to/image.jpg", "reference.png", "mask.jpg", "large_image.jpg", "small_icon.png"]


def _blocks():
    """Python blocks by heading."""
    found, heading, block = {}, "", None
    about = importlib.metadata.metadata("speedpix")
    for line in (about.get_payload() or about["Description"]).splitlines():
        if line.startswith("```"):
            if block is not None:
                found.setdefault(heading, []).append("\n".join(block) + "\n")
            block = [] if block is None and line.startswith("```python") else None
        elif block is not None:
            block.append(line)
        elif re.match(r"#+ ", line):
            heading = line
    return found


def program(name, values):
    """The source of one, as it is printed but for `values`."""
    part, number, before = BLOCKS[name]
    [blocks] = [blocks for heading, blocks in _blocks().items() if part in heading]
    source = before + blocks[number]
    for printed, own in {**values, 'workflow_id="..."': f'workflow_id="{values["your-workflow-id"]}"',
                         "input={...}": 'input={"prompt": "x"}'}.items():
        source = source.replace(printed, own)
    if name == "files":
        # A path of the reader's: the SDK takes one that begins with neither `/` nor `.` for a name, unless it is asynchronous.
        source = source.replace('"path/to/image.jpg"', '"./path/to/image.jpg"')
    if name == "faq_many":
        source += "\nresults = asyncio.run(run_multiple())\n"
    return source


class _Twin(ast.NodeTransformer):
    NAMES = {"run": "async_run", "create": "async_create", "wait": "async_wait", "get": "async_get", "save": "async_save",
             "read": "async_read"}

    def visit_Call(self, call):
        self.generic_visit(call)
        ours = isinstance(call.func, ast.Attribute) and call.func.attr in self.NAMES
        # `open(...).read()` and `os.environ.get()` are not the SDK's.
        if not ours or "environ" in ast.unparse(call.func) or "open(" in ast.unparse(call.func):
            return call
        call.func.attr = self.NAMES[call.func.attr]
        return ast.Await(value=call)


def twin(source):
    """The same program under asyncio."""
    body = _Twin().visit(ast.parse(source)).body
    lines = ast.unparse(ast.Module(body=body, type_ignores=[])).splitlines()
    inner = "\n".join(f"    {line}" if line else "" for line in lines)
    return f"import asyncio\n\n\nasync def main():\n{inner}\n    return locals()\n\n\nRESULT = asyncio.run(main())\n"

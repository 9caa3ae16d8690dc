"""Python imports this by itself where the folder is on its path: in every process that is audited, children included.

Lines of JSON, [event, text, text], go to the file that the environment variable SLIMSEG_AUDIT names.
"""

import json
import os
import sys

_EVENTS = {
    "open": 2, "import": 1, "exec": 1, "compile": 2, "pickle.find_class": 2, "subprocess.Popen": 2, "os.system": 1,
    "os.exec": 2, "os.posix_spawn": 2, "os.fork": 0, "ctypes.dlopen": 1, "ctypes.dlsym": 2, "os.remove": 1,
    "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.chmod": 1, "os.truncate": 1,
    "marshal.loads": 0, "code.__new__": 2, "urllib.Request": 1,
}  # fmt: skip


def _install(path: str) -> None:
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(event: str, arguments: tuple[object, ...]) -> None:
        count = _EVENTS.get(event, 2 if event.startswith("socket.") else None)
        if count is None:
            return
        texts = [getattr(each, "co_filename", None) or str(each)[:300] for each in arguments[:count]]
        os.write(target, (json.dumps([event, *texts]) + "\n").encode())

    sys.addaudithook(note)


if os.environ.get("SLIMSEG_AUDIT"):
    _install(os.environ["SLIMSEG_AUDIT"])

"""Create `.venv` and install the locked packages: `python3 workshop/bootstrap.py`.

Standard library only, in syntax that an old Python can read, so that it can say what is missing.
Safe to repeat: a second run with the same lock ends at once, an interrupted one is continued.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCK = os.path.join(ROOT, "requirements.lock")
VENV = os.path.join(ROOT, ".venv")
PYTHON = (
    os.path.join(VENV, "Scripts", "python.exe")
    if os.name == "nt"
    else os.path.join(VENV, "bin", "python")
)
UV = os.path.join(os.path.dirname(PYTHON), "uv")
STAMP = os.path.join(VENV, "workshop-stamp")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
OLDEST, NEWEST = (3, 11), (3, 14)
FREE_BYTES = 4_000_000_000


class Stop(Exception):
    """Ends the run with a sentence and a way out."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Create .venv and install the locked packages.")
    parser.add_argument("--force", action="store_true", help="install even if nothing changed")
    options = parser.parse_args()
    try:
        run(options.force)
    except Stop as stop:
        sys.stderr.write(f"\n{stop}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. The next run continues here.\n")
        return 130
    return 0


def run(force: bool) -> None:
    interpreter = find_python()
    wanted = fingerprint()
    if not force and read(STAMP) == wanted and works(PYTHON):
        return
    check_disk()
    started = time.time()
    say("1/4", "the virtual environment .venv")
    create_venv(interpreter)
    uv = find_uv() or fetch_uv()
    say("2/4", "the packages of requirements.lock, with %s" % ("uv" if uv else "pip"))
    install_lock(uv)
    say("3/4", "torch, the CPU build")
    has_torch = install_torch(uv)
    say("4/4", "the workshop itself")
    install(uv, ["--no-deps", "-e", ROOT], "The workshop itself could not be installed.")
    with open(STAMP, "w") as file:
        file.write(wanted)
    print("Installed in %.0f s." % (time.time() - started))
    if not has_torch:
        print(
            "Without torch everything runs but two parts: EMBEDDING_RUNTIME=sentence-transformers\n"
            "and `workshop train-reranker`. To try again: python3 workshop/bootstrap.py --force"
        )


# -- the machine ----------------------------------------------------------------------------


def find_python() -> str:
    """This Python if it will do, else another one of this machine."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and works(found):
            return found
    if sys.version_info[:2] > NEWEST:
        print(f"Python {platform.python_version()} is newer than what was tried; going on.")
        return sys.executable
    raise Stop(
        f"The workshop needs Python 3.11 to 3.14; this is {platform.python_version()}.\n"
        "Install one (Debian and Ubuntu: apt install python3.11 python3.11-venv, macOS: brew\n"
        "install python@3.12, any: https://www.python.org/downloads/) and run this again, or\n"
        "use conda: conda env create -f environment.yml"
    )


def works(python: str) -> bool:
    """Whether this interpreter starts and is of a usable version (a shim may exist and fail)."""
    code = "import sys; sys.exit(sys.version_info[:2] < (3, 11))"
    try:
        return subprocess.call([python, "-c", code], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def find_uv() -> str:
    """The path of a uv that works, or ""."""
    uv = shutil.which("uv") or shutil.which(UV)
    if not uv:
        return ""
    null = subprocess.DEVNULL
    return uv if subprocess.call([uv, "--version"], stdout=null, stderr=null) == 0 else ""


def fetch_uv() -> str:
    """Put uv into .venv, for it installs ten times as fast as pip; "" if it cannot be had."""
    attempt([*pip(), "--quiet", "uv==" + locked("uv")], quiet=True)
    return find_uv()


def check_disk() -> None:
    free = shutil.disk_usage(ROOT).free
    if free < FREE_BYTES and not os.path.exists(STAMP):
        raise Stop(
            f"Only {free / 1e9:.1f} GB are free on the disk of {ROOT}.\n"
            "The packages and models need 4 GB: free some space and run this again."
        )


# -- the steps ------------------------------------------------------------------------------


def create_venv(interpreter: str) -> None:
    if os.path.exists(PYTHON) and works(PYTHON):
        return
    uv = find_uv()
    if subprocess.call([interpreter, "-c", "import ensurepip"], stderr=subprocess.DEVNULL) == 0:
        command = [interpreter, "-m", "venv", "--clear", VENV]
    elif uv:
        command = [uv, "venv", "--clear", "--seed", "--python", interpreter, VENV]
    else:
        raise Stop(
            "This Python cannot create virtual environments.\n"
            "Debian and Ubuntu: apt install python3-venv. Then run this again."
        )
    if subprocess.call(command) != 0:
        raise Stop(f"The virtual environment {VENV} could not be created.")


def install_lock(uv: str) -> None:
    """Every pinned package but torch, which needs another source on Linux."""
    with open(LOCK) as file:
        lines = [line for line in file if not line.startswith("torch==")]
    handle, path = tempfile.mkstemp(suffix=".txt", prefix="requirements-")
    try:
        with os.fdopen(handle, "w") as copy:
            copy.writelines(lines)
        install(
            uv,
            ["--no-deps", "-r", path],
            "Some packages could not be installed; the lines above say which.\n"
            "Most often the network or a proxy is the cause. The next run continues here.",
        )
    finally:
        os.remove(path)


def install_torch(uv: str) -> bool:
    """Install the CPU build of torch; False if it cannot be had.

    On Linux the package index carries the CUDA build, gigabytes more, so the CPU build comes from
    the wheels that the user's own pip configuration lists (`find-links`), else from PyTorch's
    own index. Elsewhere the package index carries the CPU build.
    """
    version = locked("torch")
    if installed_torch().split("+")[0] == version:
        return True
    if not sys.platform.startswith("linux") or os.environ.get("WORKSHOP_ALLOW_CUDA_TORCH") == "1":
        return attempt([*uv_or_pip(uv), "--no-deps", "torch==" + version])
    cpu = f"torch=={version}+cpu"
    # Few commands import it, and they compile what they need: all of it takes ten seconds.
    torch = [*pip(), "--no-compile", "--no-deps"]
    if attempt([*torch, "--quiet", "--no-index", cpu], quiet=True):
        return True
    print(f"Asking {TORCH_INDEX} (about 200 MB).")
    patience = ["--timeout", "10", "--retries", "0"]
    return attempt(torch + patience + ["--index-url", TORCH_INDEX, cpu])


def locked(name: str) -> str:
    """The version of a package in requirements.lock."""
    with open(LOCK) as file:
        for line in file:
            if line.startswith(name + "=="):
                return line.split("==")[1].split(";")[0].strip()
    raise Stop(f"requirements.lock has no {name}. `make lock` writes it anew.")


def installed_torch() -> str:
    code = "import importlib.metadata as m; print(m.version('torch'))"
    try:
        output = subprocess.check_output([PYTHON, "-c", code], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return output.decode().strip()


# -- installers -----------------------------------------------------------------------------


def pip() -> "list[str]":
    return [PYTHON, "-m", "pip", "--disable-pip-version-check", "install"]


def uv_or_pip(uv: str) -> "list[str]":
    if not uv:
        return pip()
    command = [uv, "pip", "install", "--python", PYTHON]
    index = index_of_pip()
    if index:
        command += ["--default-index", index]
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):  # else Python keeps what it has compiled once
        command += ["--compile-bytecode"]
    return command


def index_of_pip() -> str:
    """The package index that the user has set for pip, of which uv does not know, or ""."""
    if os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL"):
        return ""
    command = [PYTHON, "-m", "pip", "config", "list"]
    try:
        said = subprocess.check_output(command, stderr=subprocess.DEVNULL).decode()
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.findall(r"^(?:global|install|:env:)\.index-url='(.+)'$", said, re.MULTILINE)
    return found[-1] if found else ""


def install(uv: str, arguments: "list[str]", sorry: str) -> None:
    """With uv; with pip where there is no uv, or where uv fails (it reads little of pip.conf)."""
    if uv and attempt(uv_or_pip(uv) + arguments):
        return
    if uv:
        print("uv could not; trying pip.")
    if not attempt([*pip(), "--quiet", "--progress-bar", "on", *arguments]):
        raise Stop(sorry)


def attempt(command: "list[str]", quiet: bool = False) -> bool:
    errors = subprocess.DEVNULL if quiet else None
    return subprocess.call(command, stderr=errors, cwd=ROOT) == 0


# -- small things ---------------------------------------------------------------------------


def fingerprint() -> str:
    """Changes when the lock, the project's entry points or this script do."""
    total = hashlib.sha256()
    for path in (LOCK, os.path.join(ROOT, "pyproject.toml"), os.path.abspath(__file__)):
        with open(path, "rb") as file:
            total.update(file.read())
    return total.hexdigest()


def read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def say(step: str, text: str) -> None:
    print(f"[{step}] {text}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

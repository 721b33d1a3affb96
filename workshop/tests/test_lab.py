"""How JupyterLab is started: our settings first, the machine's own behind them."""

from __future__ import annotations

import os
import subprocess
import sys

from workshop import lab


def test_our_settings_come_before_the_machine_s() -> None:
    assert lab.environment({})["JUPYTER_CONFIG_PATH"] == str(lab.CONFIG)
    both = lab.environment({"JUPYTER_CONFIG_PATH": "theirs", "HOME": "h"})
    assert both == {"JUPYTER_CONFIG_PATH": f"{lab.CONFIG}{os.pathsep}theirs", "HOME": "h"}


def test_jupyterlab_finds_them_and_the_question_about_news_is_off() -> None:
    code = "from jupyterlab_server.config import get_static_page_config as g; print(g())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=lab.environment(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'@jupyterlab/apputils-extension:announcements': True" in done.stdout


def test_arguments_are_passed_on() -> None:
    assert lab.command(["--no-browser", "notebooks"])[-2:] == ["--no-browser", "notebooks"]

import re

from clsp.runtime import progress


def test_a_log_gets_plain_lines_with_rate_and_time_left(monkeypatch, capsys):
    monkeypatch.setenv("CLSP_PROGRESS", "plain")
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.Progress("pretrain toy", 10, "step", done=4) as bar:
        bar.step(3, loss=1.25)
    lines = capsys.readouterr().err.splitlines()
    pattern = r"pretrain toy: step 7 of 10, loss 1\.25, [0-9.]+ step/s, \d+ s left"
    assert re.fullmatch(pattern, lines[0])
    assert len(lines) == 2


def test_short_work_prints_its_end_only(monkeypatch, capsys):
    monkeypatch.setenv("CLSP_PROGRESS", "plain")
    with progress.Progress("toy", 5, "image") as bar:
        for _ in range(5):
            bar.step()
    assert capsys.readouterr().err.startswith("toy: image 5 of 5, ")

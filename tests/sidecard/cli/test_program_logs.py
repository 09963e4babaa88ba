"""Logs on a laptop: which is the newest, and what one ends with."""

from sidecard.cli.program_logs import Logs, ends, read, said


def test_the_newest_log_of_an_app_and_of_its_sidecar(tmp_path):
    """By the time in their names; none before the first start, nor another app's."""
    for name in ("shop_app_1", "shop_app_2", "shop_daprd_3", "shops_app_4"):
        (tmp_path / f"{name}.log").touch()
    logs = Logs(tmp_path)
    assert logs.newest("shop", "app") == tmp_path / "shop_app_2.log"
    assert logs.newest("shop", "daprd") == tmp_path / "shop_daprd_3.log"
    assert logs.newest("desk", "app") is None


def test_logs_of_the_run_before_are_put_aside(tmp_path):
    """One run is kept; a new log's folder is there."""
    logs = Logs(tmp_path / "logs")
    for words in ("first", "second"):
        log = logs.new("sentry")
        log.write_text(words)
        logs.put_aside()
        assert [read(path) for path in (tmp_path / "logs" / "previous").iterdir()] == [words]
        assert not log.exists()


def test_what_a_log_ends_with(tmp_path):
    """Its last lines without colours; of one with Dapr's errors only those; one that is not there ends with nothing."""
    log = tmp_path / "x.log"
    assert ends(log) == f"{log} ends with:\n  (nothing)"
    log.write_text("one\n== APP - shop == \x1b[31mtwo\x1b[0m\nthree\n\n")
    assert ends(log, lines=2) == f"{log} ends with:\n  two\n  three"
    log.write_text('time=1 level=info msg="fine"\ntime=2 level=fatal msg="no \\"ca.crt\\""\nlast words\n')
    assert ends(log) == f'{log} ends with:\n  no \\"ca.crt\\"'


def test_whether_an_app_has_said_anything(tmp_path):
    """What Dapr's CLI writes beside it does not count."""
    log = tmp_path / "shop_app_1.log"
    assert not said(log)
    log.write_text("The App process exited with error code: exit status 1\n")
    assert not said(log)
    log.write_text("\x1b[94m== APP - shop == two\x1b[0m\n")
    assert said(log)

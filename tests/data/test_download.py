"""Downloads from a server on this machine that misbehaves: each ends as a user would want it."""

import hashlib
import multiprocessing
import re
import shutil
import time

import pytest
from downloading import CONTENT, OTHER, PATH, archive_at, here, lies_in
from mirror import Site, Watch, certificate, quick
from servers import (
    claiming,
    drip,
    page,
    redirect,
    sending,
    serve,
    stall,
    status,
)

from clsp.data import checked, download
from clsp.data.download import obtain
from clsp.data.patience import Patience
from clsp.runtime.errors import ConfigError, DataError


def test_a_download_and_then_the_folder(site, folder):
    path, url, found = obtain(here(site), folder, quick())
    assert path.read_bytes() == CONTENT and url == site.url(PATH)
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest() and found.confirmed
    assert found.path == path
    again = obtain(here(site), folder, quick())
    assert again.url == "local" and again.checked == found
    assert site.asked == [(PATH, None, None)] and [p.name for p in folder.iterdir()] == [
        "good.tar.gz"
    ]


def test_the_folder_is_the_users_choice(site, tmp_path, monkeypatch):
    assert checked.downloads().name == "downloads"
    monkeypatch.setenv("CLSP_DOWNLOADS", str(tmp_path / "elsewhere"))
    assert obtain(here(site), patience=quick()).path == tmp_path / "elsewhere" / "good.tar.gz"


def test_pauses_grow_and_end(site, folder):
    site.script[PATH] = [status(503)]
    watch = Watch()
    with pytest.raises(DataError, match="status 503 Service Unavailable, 5 times in a row"):
        obtain(here(site), folder, quick(watch, longest=5.0))
    assert watch.slept == [1, 2, 4, 5]


def test_a_busy_server_is_asked_again_when_it_wants(site, folder):
    site.script[PATH] = [status(503), status(429, Retry_After="7"), serve]
    watch = Watch()
    obtain(here(site), folder, quick(watch))
    assert watch.slept == [1, 7] and len(site.asked) == 3


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_final_answer_is_taken_as_one(site, folder, code):
    site.script[PATH] = [status(code)]
    watch = Watch()
    with pytest.raises(DataError, match=f"answers with status {code}"):
        obtain(here(site), folder, quick(watch))
    assert len(site.asked) == 1 and watch.slept == []


def test_a_bad_first_mirror(site, folder):
    site.files["/b"] = CONTENT
    obtained = obtain(here(site, "/gone", "/b"), folder, quick())
    assert obtained.url == site.url("/b")
    assert [path for path, _, _ in site.asked] == ["/gone", "/b"]


@pytest.mark.parametrize(
    "bad", [sending(OTHER), sending(OTHER[:-9]), sending(CONTENT + b"x"), page]
)
def test_a_first_mirror_with_another_file(site, folder, bad):
    site.files["/b"] = CONTENT
    site.script[PATH] = [bad]
    obtained = obtain(here(site, PATH, "/b"), folder, quick())
    assert obtained.url == site.url("/b") and obtained.path.read_bytes() == CONTENT


def test_every_address_and_its_reason_are_told(site, folder):
    site.script["/b"] = [page]
    with pytest.raises(DataError) as caught:
        obtain(here(site, "/gone", "/b"), folder, quick())
    told = str(caught.value)
    assert re.search(r"good\.tar\.gz could not be downloaded", told)
    assert f"{site.url('/gone')}: answers with status 404" in told
    assert f'{site.url("/b")}: sends a web page with the title "Virus scan warning"' in told
    assert f"belongs at {folder / 'good.tar.gz'} (bytes 512000, sha256 " in told
    assert told.endswith("Ask its owner.")


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"md5": "0" * 32, "sha256": None}], ids=["sha256", "md5 alone"]
)
def test_each_digest_is_checked_and_wrong_bytes_are_not_kept(site, folder, wrong):
    """A right md5 does not help a wrong sha256."""
    name = next(iter(wrong))
    with pytest.raises(DataError, match=f"{name} is .* expected 000"):
        obtain(here(site, **wrong), folder, quick())
    assert lies_in(folder) == [] and len(site.asked) == 1


def test_a_wrong_md5_beside_the_right_sha256_is_a_mistake_of_the_catalogue(site, folder):
    with pytest.raises(ConfigError, match=r"catalog.yaml: good.tar.gz.md5: expected .*found 000"):
        obtain(here(site, md5="0" * 32), folder, quick())
    assert ConfigError.exit_code == 2
    assert not (folder / "good.tar.gz").exists()
    obtain(here(site), folder, quick())  # mended, it takes what has come, without another request
    assert len(site.asked) == 1


def test_a_wrong_length_is_seen_before_anything_is_sent(site, folder):
    site.script[PATH] = [claiming(10**12)]
    with pytest.raises(DataError, match="offers 1000000000000 bytes, expected 512000"):
        obtain(here(site), folder, quick())
    with pytest.raises(DataError, match="more than the 17179869184 allowed"):
        obtain(here(site, size=None), folder, quick())
    assert not (folder / "good.tar.gz.part").exists()


def test_more_than_the_known_size_is_stopped(site, folder):
    site.script[PATH] = [claiming(0)]
    with pytest.raises(DataError, match="sends more than 1000 bytes"):
        obtain(here(site, size=1000), folder, quick())
    assert (folder / "good.tar.gz.part").stat().st_size <= 1000


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream"])
def test_a_web_page_is_recognised(site, folder, kind):
    site.script[PATH] = [lambda handler, content: page(handler, content, kind)]
    with pytest.raises(DataError, match='web page with the title "Virus scan warning"'):
        obtain(here(site, size=None), folder, quick())
    assert lies_in(folder) == []


def test_a_slow_drip_is_left_for_the_next_mirror(site, folder):
    site.files["/b"] = CONTENT
    site.script[PATH] = [drip]
    assert obtain(here(site, PATH, "/b"), folder, quick()).url == site.url("/b")


def test_a_server_that_stalls_is_left_for_the_next_mirror(site, folder):
    site.files["/b"] = CONTENT
    site.script[PATH] = [stall]
    assert obtain(here(site, PATH, "/b"), folder, quick()).url == site.url("/b")
    assert site.asked[-1][1] == "bytes=1000-"


def test_a_slow_server_is_asked_once_more_when_the_others_have_failed(site, folder):
    site.script[PATH] = [drip, serve]
    assert obtain(here(site, PATH, "/gone"), folder, quick()).url == site.url(PATH)
    site.files["/c"], site.script["/c"] = CONTENT, [drip]
    with pytest.raises(
        DataError, match=r"too slow to wait for(?s:.*)ended after 400 of 512000(?s:.*)another run"
    ):
        obtain(here(site, "/c", name="c"), folder, quick())


def test_an_archive_put_there_by_hand(site, folder):
    folder.mkdir()
    (folder / "good.tar.gz").write_bytes(CONTENT)
    assert obtain(here(site), folder, quick()).url == "local"
    (folder / "good.tar.gz").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"511999 bytes, expected 512000\. Move that file away"):
        obtain(here(site), folder, quick())
    (folder / "good.tar.gz").write_bytes(OTHER)
    with pytest.raises(DataError, match=r"sha256 is .*Move that file away"):
        obtain(here(site), folder, quick())
    assert site.asked == []


def test_an_archive_that_nobody_offers(site, folder):
    with pytest.raises(
        DataError, match=r"no address to download it from.*belongs at.*Ask its owner"
    ):
        obtain(archive_at(), folder, quick())


def test_a_replaced_file_is_noticed(site, folder):
    obtained = obtain(here(site), folder, quick())
    obtained.checked.still_there()
    shutil.copyfile(obtained.path, folder / "copy")
    (folder / "copy").replace(obtained.path)
    with pytest.raises(DataError, match="has changed since it was checked"):
        obtained.checked.still_there()


def test_a_full_disk_is_told_before_the_download(site, folder, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"1000 bytes free, 512000 needed for good\.tar\.gz"):
        obtain(here(site), folder, quick())


def test_only_https_to_known_hosts_without_credentials(site, folder):
    default = Patience(sleep=lambda seconds: None)
    with pytest.raises(DataError, match="only https addresses"):
        obtain(here(site), folder, default)
    for url, reason in (
        ("file:///etc/passwd", "only https"),
        ("https://example.org/x", "'example.org' is not among 127.0.0.1"),
        ("https://127.0.0.1.example.org/x", "not among"),
        ("https://me:secret@127.0.0.1/x", "https://127.0.0.1: an address must not hold"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            obtain(archive_at(url), folder, default)
        assert "secret" not in str(caught.value).replace(url, "")
    assert site.asked == []


@pytest.mark.parametrize("to", ["https://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_elsewhere_are_refused(site, folder, to):
    site.script[PATH] = [redirect(to)]
    with pytest.raises(DataError, match=r"is not among|only http|not allowed"):
        obtain(here(site), folder, quick())
    assert lies_in(folder) == []


def test_a_redirect_on_the_same_host_is_followed(site, folder):
    site.script["/moved"] = [redirect(site.url(PATH))]
    assert obtain(here(site, "/moved"), folder, quick()).path.read_bytes() == CONTENT


def test_https_for_real_and_a_redirect_to_http(site, folder, tmp_path, monkeypatch):
    """The product's own settings, but for a certificate that this machine is told to trust."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = certificate(tmp_path)
    with Site(made) as safe:
        safe.files[PATH] = CONTENT
        with pytest.raises(DataError, match="its certificate is not valid"):
            obtain(here(safe), folder)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "crt.pem"))
        safe.script["/away"] = [redirect(site.url(PATH))]
        with pytest.raises(DataError, match=r"redirected to http://.*: only https addresses"):
            obtain(here(safe, "/away"), folder)
        assert obtain(here(safe), folder).path.read_bytes() == CONTENT
    assert site.asked == []


def test_nobody_listens(site, folder):
    with Site() as closed:
        archive = here(closed)
    with pytest.raises(DataError, match=r"refused.*, 5 times in a row"):
        obtain(archive, folder, quick())


def hold(folder, ready):
    with download._in_turn(folder / "good.tar.gz"):
        ready.set()
        time.sleep(0.2)
        (folder / "good.tar.gz").write_bytes(CONTENT)


def test_two_datasets_may_want_the_same_archive_at_once(site, folder):
    folder.mkdir()
    ready = multiprocessing.get_context("fork").Event()
    other = multiprocessing.get_context("fork").Process(target=hold, args=(folder, ready))
    other.start()
    ready.wait(5)
    assert obtain(here(site), folder, quick()).url == "local"  # waited for the other's
    other.join()
    assert site.asked == []

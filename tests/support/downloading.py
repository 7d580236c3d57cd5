"""One small file that tests download, and what is known of it."""

import hashlib

from clsp.config.catalog import Archive
from clsp.data import download

CONTENT = bytes(range(256)) * 2000  # 512 kB
OTHER = bytes(reversed(CONTENT))
PATH = "/good.tar.gz"


def archive_at(*urls, **changes):
    known = {
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "md5": hashlib.md5(CONTENT).hexdigest(),
        "hosts": ("127.0.0.1",),
    }
    entry = Archive(name="good.tar.gz", checked="here", manual="Ask its owner")
    return entry.model_copy(update={**known, "urls": urls, **changes})


def here(site, *paths, **changes):
    return archive_at(*[site.url(path) for path in paths or (PATH,)], **changes)


def lies_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def leave(folder, content, site=None, tag=None):
    """Lay an unfinished part into the folder, with its origin or without."""
    folder.mkdir(exist_ok=True)
    (folder / "good.tar.gz.part").write_bytes(content)
    if site:
        part = download.Part(folder / "good.tar.gz.part")
        part.record.write_text(f'{{"url":"{site.url(PATH)}","validator":{tag}}}')

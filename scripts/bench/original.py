"""The steps of the shipper that this project began as, without its bugs: tar
through zstd into the outbox, a second pass for the hash, PUT, move, one episode
after another. Level 3 instead of its 19, so that the steps are compared and not
the levels; one connection, kept."""

import base64
import hashlib
import http.client
import os
import shutil
import ssl
import subprocess
import tarfile
import urllib.parse

src, outbox, shipped, host = (os.environ[k] for k in ("SRC", "OUT", "SHIPPED", "HOST"))
url = urllib.parse.urlsplit(os.environ["URL"])
credentials = ssl.create_default_context(cafile=os.environ["CA"])
credentials.load_cert_chain(os.environ["CRT"], os.environ["KEY"])
receiver = http.client.HTTPSConnection(url.hostname, url.port, context=credentials, blocksize=1 << 16)

for name in sorted(os.listdir(src)):
    final = os.path.join(outbox, name + ".tar.zst")
    with open(final + ".partial", "wb") as out:
        zstd = subprocess.Popen(["zstd", "-q", "-T0", "-3", "--stdout"], stdin=subprocess.PIPE, stdout=out)
        with tarfile.open(fileobj=zstd.stdin, mode="w|") as tar:
            tar.add(os.path.join(src, name), arcname=name)
        zstd.stdin.close()
        if zstd.wait() != 0:
            raise SystemExit("zstd failed")
    os.rename(final + ".partial", final)
    digest = hashlib.sha256()
    with open(final, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    with open(final, "rb") as f:
        receiver.request("PUT", f"/v1/episodes/{host}/{name}", body=f, headers={
            "Content-Length": str(os.path.getsize(final)),
            "Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
        })
        answer = receiver.getresponse()
        answer.read()
    if answer.status != 201:
        raise SystemExit(f"{name}: {answer.status} {answer.reason}")
    shutil.move(os.path.join(src, name), os.path.join(shipped, name))
    os.unlink(final)

"""Evidence bundle (证据包): entries of the log with what proves them, as one ZIP file that is checked offline. Pure.

    entries/<id>.json                the entry's exact bytes; entries/<id>.view.json where its reader sees a part
    proofs/<id>.tlog-proof           C2SP tlog-proof, for `pool audit check-proof`
    grants/<id>.<version>.json       the grant's exact text, whose SHA-256 is in the entries that name it
    checkpoint, log.pub              the newest signed checkpoint; the log's public key
    search.json                      what was asked, by whom, when, and the id of the entry of it
    README.txt, 说明.txt             how it is checked
    manifest.json                    SHA-256 of each other file

The same files give the same bytes: names are sorted, times are fixed. The SHA-256 of `manifest.json` is in the log, in
the second entry of the act that made the bundle: a bundle that is found years later can be proven to be that one.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

from schemas.canonical import Json, canonical

__all__ = ["MANIFEST", "README", "README_ZH", "pack_bundle"]

MANIFEST: Final = "manifest.json"

README: Final = """\
Evidence bundle of a data exchange pool's audit log
====================================================

entries/    the entries as the log has them, byte for byte; <id>.view.json where the reader sees a part of an entry
proofs/     one proof for each entry that is signed (C2SP tlog-proof): that it is in the log under a signed checkpoint
grants/     the versions of grants that the entries name; the SHA-256 of each file stands in those entries
checkpoint  the newest signed checkpoint when the bundle was made
log.pub     the log's public key AS THE POOL GAVE IT. It proves nothing against the pool: use the key that you have kept
            yourself, or compare this one with it
search.json what was asked, by whom and when
manifest.json   the SHA-256 of each file; its own SHA-256 is in the log, in the entry audit:log:export that follows the
            one that search.json names

Check it without the network:

    sha256sum entries/* proofs/* grants/*                           compare with manifest.json
    pool audit check-proof proofs/ID.tlog-proof --key YOUR-KEY.pub  for each proof

A proof says that an entry is in the log. It does not say that what the entry states is true, that nothing was left out
before it was written, or that nobody was shown another log: for that, compare checkpoints with others who keep them.
"""

README_ZH: Final = """\
数据交换池审计日志证据包
========================

entries/    日志条目原文（逐字节）；读者只能看到条目一部分时为 <id>.view.json
proofs/     每个已签名条目的证明（C2SP tlog-proof）：证明该条目在已签名检查点之下的日志中
grants/     条目所引用的授权版本；每个文件的 SHA-256 写在相应条目中
checkpoint  制作证据包时最新的已签名检查点
log.pub     由交换池提供的日志公钥。它不能用来反证交换池自身：请使用您自己保存的公钥，或与之比对
search.json 查询内容、查询人和时间
manifest.json   每个文件的 SHA-256；其自身的 SHA-256 记录在日志中（search.json 所指条目之后的 audit:log:export 条目）

离线核验：

    sha256sum entries/* proofs/* grants/*                           与 manifest.json 比对
    pool audit check-proof proofs/ID.tlog-proof --key 您的公钥.pub    逐个证明核验

证明只说明条目在日志中，不说明条目内容属实，不说明写入之前没有遗漏，也不说明他人看到的是同一日志：请与其他保存检查点的人比对检查点。
"""

_FIXED_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the earliest of the form
_FILE_MODE: Final = 0o644 << 16
_UNIX: Final = 3


def pack_bundle(files: Mapping[str, bytes], entries: Sequence[Mapping[str, Json]]) -> tuple[bytes, str]:
    """Return the ZIP file, and the SHA-256 of its manifest in hexadecimal.

    Args:
        files: by name; all but the manifest.
        entries: what the manifest says of each entry: id, index, leaf hash, proof, withheld.
    """
    digests: dict[str, Json] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = canonical({"files": digests, "entries": [dict(one) for one in entries]})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted({**files, MANIFEST: manifest}.items()):
            info = zipfile.ZipInfo(name, _FIXED_TIME)
            info.create_system, info.external_attr, info.compress_type = _UNIX, _FILE_MODE, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return packed.getvalue(), hashlib.sha256(manifest).hexdigest()

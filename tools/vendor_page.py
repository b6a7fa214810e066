"""Fetch the libraries of the page from the npm registry, check them, and write them beside it.

    npm config get registry                # must reach the npm registry
    python tools/vendor_page.py            # run by hand when a version changes, never at install

Each package is fetched as a tarball (`npm pack`), its SHA-512 is compared with the one below, and the files named here
are copied as they are, but for two things: bare imports become relative ones (a browser without a build step knows no
package names), and the pointer to a source map goes. SHA256SUMS lists what was written; a test compares.
"""

import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).parents[1] / "src/groundup/serving/page/vendor"


class Package(NamedTuple):
    """One package, and what is taken of it: file in the tarball -> name here."""

    name: str
    version: str
    sha512: str
    files: dict[str, str]


PACKAGES = [
    Package(
        "preact",
        "10.29.8",
        "ej2aVZ+vZ8WO7tvlQWRM9N63A0KzF9q4mWJfDUHgYaIofWY9hu74QdnQrjoPMmZi2/nZ5gN0bJCQF49xQqx09Q==",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js", "LICENSE": "preact.LICENSE"},
    ),
    Package(
        "htm",
        "3.1.1",
        "983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        {"dist/htm.mjs": "htm.js", "LICENSE": "htm.LICENSE"},
    ),
    Package(
        "@preact/signals-core",
        "1.14.5",
        "vcRv7Ityz5JVmeiVqIluLFzT/PDS/AlhHUpw3/aUWqcVUs6bDGIPXE/6RSC4evBNWYvnniozg5Syfj33al3gkg==",
        {"dist/signals-core.mjs": "signals-core.js", "LICENSE": "signals-core.LICENSE"},
    ),
    Package(
        "@preact/signals",
        "2.11.4",
        "Rb+5RPo9gWSaHtzJeauhHxiC8KP/IF2DEPkHPEOGOnuy2wnJzRqyeLRankUCYd6ADqtxS6GnWGv6Ie343d8aYw==",
        {"dist/signals.mjs": "signals.js", "LICENSE": "signals.LICENSE"},
    ),
    Package(
        "uplot",
        "1.6.32",
        "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        {"dist/uPlot.esm.js": "uplot.js", "dist/uPlot.min.css": "uplot.css", "LICENSE": "uplot.LICENSE"},
    ),
]
RELATIVE = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
    "@preact/signals": "./signals.js",
}
IMPORT = re.compile(r"""(from\s*|import\s*)(["'])(preact/hooks|preact|@preact/signals-core|@preact/signals)\2""")


def fetch(package: Package, folder: Path) -> Path:
    """The tarball of a package, after its hash was compared."""
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    name = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    path = folder / name
    found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != package.sha512:
        sys.exit(f"{package.name} {package.version} is not the file that was looked at: SHA-512 {found}")
    return path


def main() -> None:
    """Write every file, and the list of their hashes."""
    TARGET.mkdir(parents=True, exist_ok=True)
    sums = []
    with tempfile.TemporaryDirectory() as temporary:
        for package in PACKAGES:
            with tarfile.open(fetch(package, Path(temporary))) as tar:
                for inside, name in package.files.items():
                    member = tar.extractfile(f"package/{inside}")
                    assert member is not None, f"{package.name} has no {inside}"
                    text = member.read().decode()
                    if name.endswith(".js"):
                        text = IMPORT.sub(lambda m: f"{m[1]}{m[2]}{RELATIVE[m[3]]}{m[2]}", text)
                        text = re.sub(r"\n?//# sourceMappingURL=\S*\s*$", "\n", text)
                    (TARGET / name).write_text(text, "utf-8")
                    sums.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}")
    (TARGET / "SHA256SUMS").write_text("\n".join(sorted(sums, key=lambda line: line.split()[1])) + "\n")


if __name__ == "__main__":
    main()

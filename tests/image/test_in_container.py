"""
The container recipe, carried out with buildah in docker's place: `bin/build-eif --in-container`.
"""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Final

import pytest

from image.container.context import ROOT
from image.container.wheels import fetch_wheels
from image.debian.archive import cache_folder, run
from image.eif.record import parse_build_record
from ops.in_account.source import pack_source
from tests.image.debian_root import ensure_root
from tests.image.test_build_specification import DEMO, commit_of_the_folder, fetch_packages

_SECONDS: Final = 1500
# `docker build` and `docker run` as the recipe calls them. buildah builds the container; it is
# entered with all rights of this machine's, which buildah gives to nothing that it runs.
_DOCKER: Final = """\
#!/bin/bash
set -eu
export BUILDAH_ISOLATION=chroot
b() { buildah --storage-driver=vfs --root "$STORE/root" --runroot "$STORE/run" "$@"; }
verb=$1 && shift
if [ "$verb" = build ]; then b build --build-arg DEBIAN=localhost/debian "$@"; exit; fi
volumes=("$PACKAGES:/packages") place=/
while [ "${1:0:1}" = - ]; do
    case $1 in
        --volume) volumes+=("${2/enclave-llm-cache/$CACHE}") && shift 2 ;;
        --workdir) place=$2 && shift 2 ;;
        *) shift ;;
    esac
done
root=$(b mount "$(b from "$1")") && shift
export root place mounts="${volumes[*]}"
exec unshare --mount --propagation=private sh -euc '
    mount --bind "$root" "$root" && cd "$root"
    mount --rbind /dev dev && mount -t proc proc proc && mount --rbind /sys sys
    for volume in $mounts; do
        mkdir -p ".${volume#*:}" && mount --bind "${volume%:*}" ".${volume#*:}"
    done
    run="cd $place && exec /usr/local/bin/inside \\"\\$@\\""
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PIP_NO_INDEX=1 \
        PIP_FIND_LINKS=/packages chroot . sh -euc "$run" - "$@"
' - "$@"
"""


@pytest.fixture
def docker(tmp_path: Path) -> dict[str, str]:
    """The environment in which docker is buildah, with a bare Debian 12 to start from."""
    folder = tmp_path / "store"
    (folder / "debian").mkdir(parents=True)
    (folder / "debian" / "Dockerfile").write_text("FROM scratch\nADD debian.tar /\n")
    shutil.copy(ensure_root(), folder / "debian" / "debian.tar")
    own = (
        "buildah",
        "--storage-driver=vfs",
        "--root",
        str(folder / "root"),
        "--runroot",
        str(folder / "run"),
    )
    run((*own, "build", "--tag", "localhost/debian", str(folder / "debian")), seconds=_SECONDS)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(_DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    for kept in (*cache_folder().glob("kernel-*"), *cache_folder().glob("init-*")):
        shutil.copytree(kept, tmp_path / "cache" / "enclave-llm" / kept.name)
    return {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "STORE": str(folder),
        "PACKAGES": str(fetch_packages()),
        "CACHE": str(tmp_path / "cache"),
    }


@pytest.mark.skipif(
    not os.environ.get("ENCLAVE_LLM_CONTAINER"),
    reason="the container recipe is carried out where ENCLAVE_LLM_CONTAINER is set: some minutes",
)
def test_it_makes_the_image_that_is_made_here(
    built: Path, docker: dict[str, str], tmp_path: Path
) -> None:
    """
    From a copy of the repository the recipe makes the image that bin/build-eif makes here, bit for
    bit, and leaves it in build/.
    """
    source = tmp_path / "source"
    pack_source(tmp_path / "zip", commit_of_the_folder(), weights=DEMO, inside=False, kit=None)
    with zipfile.ZipFile(tmp_path / "zip") as archive:
        archive.extractall(source)
    run(("sh", "-c", f"chmod +x {source}/bin/* {source}/image/container/*"))
    wheels = fetch_wheels(ROOT / "build", note=print)
    shutil.copytree(wheels, source / "build" / wheels.name)
    shutil.copy(built / "base.tar", source / "build")
    done = subprocess.run(
        (source / "bin" / "build-eif", "--in-container", "--kit", "nitro"),
        env=docker,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    record = parse_build_record((source / "build" / "measurements.json").read_bytes())
    assert record == parse_build_record((built / "measurements.json").read_bytes())

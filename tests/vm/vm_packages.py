"""Getting a guest's kernel, and the emulator for it, out of Debian's own packages.

Everything lands in a cache directory of the user's: nothing is installed on the machine, and no
root is needed. Each part of the cache is made beside its final place and then renamed, so that a
part which exists is complete.
"""

from __future__ import annotations

import lzma
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

#: What init.sh needs before it can mount the guest's root, apart from what is built in.
BOOT_MODULES = {
    "uml": ("overlay",),
    "qemu": ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"),
}
SWAP_MODULES = ("zram",)
KERNEL_METAPACKAGE = {"uml": "user-mode-linux", "qemu": "linux-image-amd64"}
SYSTEMD = ("systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "systemd-container", "cron")
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # of /, which are symbolic links to those of /usr


class UnavailableError(Exception):
    """A part of the guest is missing here; the message says which one and how to get it."""


class NothingToDownloadError(UnavailableError):
    """apt names no package: the machine has them all, or apt does not know them."""


def cache_directory() -> Path:
    """Return this user's cache of guest parts for the running Debian release."""
    chosen = os.environ.get("MEMRUN_VM_CACHE")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        chosen = os.path.join(base, "memrun-vm")
    release = platform.freedesktop_os_release()
    return Path(chosen).absolute() / release.get("VERSION_CODENAME", release.get("ID", "unknown"))


def obtain_guest(kind: str) -> Path:
    """Return the directory with `kernel`, `busybox`, `modules/` and `swap-modules/` of a kind."""
    return _published(kind, lambda directory: _build_guest(kind, directory))


def obtain_emulator() -> tuple[str, dict[str, str]]:
    """Return QEMU's program and the environment variables it needs to find its libraries."""
    installed = shutil.which("qemu-system-x86_64")
    if installed:
        return installed, {}
    tree = _published("emulator", _build_emulator)
    libraries = sorted({str(found.parent) for found in tree.rglob("lib*.so.*")})
    program = tree / "usr/bin/qemu-system-x86_64"
    if not program.exists():
        raise UnavailableError(
            f"{tree} holds no qemu-system-x86_64; `rm -r {tree}` and try again, or have an "
            "administrator run `apt-get install qemu-system-x86`."
        )
    return str(program), {"LD_LIBRARY_PATH": ":".join(libraries)}


def obtain_systemd() -> Path:
    """Return the tree to lay over the machine's own / so that systemd and cron can run there: what this machine lacks."""
    return _published("systemd", _build_systemd)


def _published(name: str, build: Callable[[Path], None]) -> Path:
    """Return a part of the cache, built first where it is not there yet."""
    cache = cache_directory()
    final = cache / name
    if final.is_dir():
        return final
    if platform.machine() != "x86_64":
        raise UnavailableError("The guests' kernels exist for x86-64 machines only.")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache, ignore_cleanup_errors=True) as scratch:
            fresh = Path(scratch) / "part"
            fresh.mkdir()
            build(fresh)
            fresh.chmod(0o755)
            _rename(fresh, final)
    except OSError as error:
        raise UnavailableError(
            f"The cache for guests cannot be written ({error}); set MEMRUN_VM_CACHE to a "
            "directory that can, with 600 MB to spare."
        ) from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or "it did not say why").strip().splitlines()
        reasons = [line for line in lines if "Failed to fetch" in line] or lines
        raise UnavailableError(
            f"`{error.cmd[0]}` could not get a guest's packages ({reasons[-1]}). The machine "
            "needs a network and a working apt (try `apt-get update`), or a cache filled elsewhere "
            "by `python tests/vm/guest.py --fetch-only`."
        ) from error
    return final


def _rename(fresh: Path, final: Path) -> None:
    """Put a finished part in its place, unless another process was faster."""
    try:
        fresh.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def _build_guest(kind: str, directory: Path) -> None:
    """Pick what one kind of guest needs out of its packages."""
    tree = directory.parent / "tree"
    packages = _kernel_packages if kind == "qemu" else _named(KERNEL_METAPACKAGE[kind])
    _unpack(packages, tree)
    busybox = directory.parent / "busybox"
    _unpack(_named("busybox-static"), busybox)
    shutil.copyfile(_only(busybox, "busybox", "busybox-static"), directory / "busybox")
    if kind == "uml":
        shutil.copyfile(_only(tree, "linux.uml", "user-mode-linux"), directory / "kernel")
    else:
        image = _only(tree, "vmlinuz*", KERNEL_METAPACKAGE[kind]).read_bytes()
        (directory / "kernel").write_bytes(_uncompressed_kernel(image))
    for program in ("busybox", "kernel"):
        (directory / program).chmod(0o755)
    boot = _in_loading_order(tree, BOOT_MODULES[kind])
    swap = [found for found in _in_loading_order(tree, SWAP_MODULES) if found not in boot]
    _copy_modules(boot, directory / "modules")
    _copy_modules(swap, directory / "swap-modules")


def _build_emulator(directory: Path) -> None:
    """Unpack QEMU with every library that this machine lacks."""
    _unpack(_missing("qemu-system-x86"), directory)


def _build_systemd(directory: Path) -> None:
    """Unpack what this machine lacks of systemd, where the machine's own directories are."""
    with suppress(NothingToDownloadError):
        _unpack(_missing(*SYSTEMD), directory)
    for name in MERGED:
        apart = directory / name
        if apart.is_dir():
            shutil.copytree(apart, directory / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(apart)


def _only(tree: Path, pattern: str, package: str) -> Path:
    """Return the file of a package that has this name, wherever the release puts it."""
    for found in sorted(tree.rglob(pattern)):
        if found.is_file() and not found.is_symlink():
            return found
    raise UnavailableError(
        f"Debian's package {package} holds no file {pattern}: this release is unknown to the harness, please report it."
    )


def _uncompressed_kernel(image: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage, or the image itself.

    QEMU boots the ELF file at once; unpacking it inside an emulated machine takes seconds.
    """
    start = image.find(b"\xfd7zXZ\x00")
    while start >= 0:
        try:
            kernel = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(image[start:])
        except lzma.LZMAError:
            kernel = b""
        if kernel.startswith(b"\x7fELF"):
            return kernel
        start = image.find(b"\xfd7zXZ\x00", start + 1)
    return image


def _module_bytes(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _in_loading_order(tree: Path, wanted: Iterable[str]) -> list[Path]:
    """Return modules and what they depend on, dependencies first.

    A name with no file is built into the kernel. The modules say themselves what they need,
    which spares the machine depmod and modprobe.
    """
    files = {path.name.split(".")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    ordered: list[Path] = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in ordered:
            return
        depends = re.search(rb"\x00depends=([^\x00]*)\x00", _module_bytes(path))
        for other in depends[1].decode().split(",") if depends else ():
            visit(other)
        ordered.append(path)

    for name in wanted:
        visit(name)
    return ordered


def _copy_modules(paths: Sequence[Path], directory: Path) -> None:
    """Write modules uncompressed, under names that sort in the order of loading."""
    directory.mkdir()
    for number, path in enumerate(paths):
        name = path.name.split(".")[0]
        (directory / f"{number:02}-{name}.ko").write_bytes(_module_bytes(path))


#: A way to name packages, which may have to look at apt's lists (with these apt options).
PackageNames = Callable[[Sequence[str]], "list[str]"]


def _named(*packages: str) -> PackageNames:
    return lambda _options: list(packages)


def _kernel_packages(options: Sequence[str]) -> list[str]:
    """Return the packages that linux-image-amd64 stands for in this release."""
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    leave_out = [f"--no-{kind}" for kind in kinds]
    command = ["apt-cache", *options, "depends", "--recurse", *leave_out, "linux-image-amd64"]
    found = re.findall(r"^linux-(?:image|binary|modules)-\d\S*", _output(command), re.MULTILINE)
    if not found:
        raise UnavailableError("apt knows no package linux-image-amd64.")
    return found


def _missing(*packages: str) -> PackageNames:
    """Those of these packages, and of what they need, which the machine does not have.

    Upgrades (their old version is given in brackets) are left out: a newer libc, say, does not
    work beside the machine's own loader.
    """

    def names(options: Sequence[str]) -> list[str]:
        simulate = ["apt-get", *options, "--simulate", "--no-install-recommends", "install"]
        return re.findall(r"^Inst (\S+) \(", _output([*simulate, *packages]), re.MULTILINE)

    return names


def _unpack(packages: PackageNames, tree: Path) -> None:
    """Download packages and unpack them into a tree.

    The machine's own lists of packages may be absent (in containers) or too old (a file that
    they name is gone from the mirror): the second attempt fetches lists of its own.
    """
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix="apt-") as apt:
        options = ["-q", *(["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else [])]
        try:
            _download(packages, options, Path(apt) / "first")
            downloaded = Path(apt) / "first"
        except NothingToDownloadError:
            raise
        except (UnavailableError, subprocess.CalledProcessError):
            downloaded = Path(apt) / "second"
            _download_with_own_lists(packages, options, downloaded)
        for package in sorted(downloaded.glob("*.deb")):
            _output(["dpkg-deb", "--extract", str(package), str(tree)])


def _download(packages: PackageNames, options: Sequence[str], directory: Path) -> None:
    directory.mkdir()
    names = packages(options)
    if not names:
        raise NothingToDownloadError("apt names no package to download.")
    _output(["apt-get", *options, "download", *names], directory)


def _download_with_own_lists(packages: PackageNames, options: Sequence[str], directory: Path) -> None:
    """Download packages by fresh lists, kept apart from the machine's."""
    for needed in ("lists/partial", "cache/archives/partial"):
        (directory.parent / needed).mkdir(parents=True)
    own = [f"Dir::State::Lists={directory.parent}/lists", f"Dir::Cache={directory.parent}/cache"]
    options = [*options, *(word for option in own for word in ("-o", option))]
    complaint: subprocess.CalledProcessError | None = None
    try:
        _output(["apt-get", *options, "-o", "APT::Update::Error-Mode=any", "update"])
    except subprocess.CalledProcessError as error:
        complaint = error  # perhaps about a source that has nothing to do with these packages
    try:
        _download(packages, options, directory)
    except (UnavailableError, subprocess.CalledProcessError) as error:
        raise complaint or error from None


def _output(command: Sequence[str], directory: Path | None = None) -> str:
    """Run a program of apt's and return what it printed."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"This machine has no `{command[0]}`: the guests are made of Debian's packages.") from error
    try:
        output, errors = process.communicate()
    except BaseException:
        # Its helpers (dpkg-deb has a tar) must go too: they would refill what is cleared up now.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return output

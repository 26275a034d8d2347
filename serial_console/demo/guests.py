"""A small Linux guest: Debian's cloud kernel and busybox with a login on its serial line."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from ..errors import SetupError
from . import host
from .libvirtd import PrivateLibvirtd

LINUX_MIB = 128
"""Memory of the Linux guest."""

PTY_SERIAL = "<serial type='pty'/>"

_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_DOWNLOAD_SECONDS = 600.0

# In the order of loading. The power button needs the first two, virtio consoles the rest.
_MODULES = (
    "drivers/acpi/button",
    "drivers/input/evdev",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/char/virtio_console",
)

_INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /dev/pts
mount -t devpts devpts /dev/pts
hostname demo
for module in {" ".join(map(os.path.basename, _MODULES))}; do
    insmod /lib/modules/$module.ko
done
acpid
if ls /sys/bus/virtio/drivers/virtio_console | grep -q '^virtio'; then
    # The driver learns of its ports by messages, some time after it is loaded.
    for try in $(seq 100); do [ -e /dev/hvc0 ] && break; usleep 10000; done
fi
{{
    for tty in $(sed -n '/uart:unknown/!s/^\\([0-9]\\):.*/ttyS\\1/p' /proc/tty/driver/serial); do
        echo "$tty::respawn:/sbin/getty -L 115200 $tty xterm-256color"
    done
    [ -e /dev/hvc0 ] && echo "hvc0::respawn:/sbin/getty 0 hvc0 xterm-256color"
    echo "::ctrlaltdel:/sbin/reboot"
}} > /etc/inittab
exec /sbin/init
"""

_FILES = {
    "init": (0o755, _INIT),
    "etc/passwd": (0o644, "root:x:0:0:root:/root:/bin/sh\n"),
    "etc/shadow": (0o600, "root::1:0:99999:7:::\n"),
    "etc/group": (0o644, "root:x:0:\n"),
    "etc/issue": (0o644, "\nA demo guest. Log in as root; there is no password.\n\n"),
    "etc/motd": (0o644, "Try dmesg, vi, top, reboot, poweroff; resize after a change of window.\n"),
    "etc/profile": (0o644, "export PS1='\\u@\\h:\\w\\$ '\n"),
    "etc/acpi/PWRF/00000080": (0o755, "#!/bin/sh\nexec poweroff\n"),
}
_DIRECTORIES = (
    "bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "lib/modules", "proc", "root", "sbin",
    "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var", "var/log", "var/run",
)  # fmt: skip


class Linux(NamedTuple):
    """The Linux guest's files, as paths that a libvirtd's guests can read."""

    kernel: str
    initramfs: str


def linux(libvirtd: PrivateLibvirtd, kernel: str) -> Linux:
    """Put a Linux guest's files where the guests of this libvirtd can read them.

    Args:
        libvirtd: whose guests are to boot it.
        kernel: what ``fetch_kernel`` returned.

    Raises:
        SetupError: there is no busybox.
    """
    with open(os.path.join(kernel, "vmlinuz"), "rb") as file:
        image = file.read()
    return Linux(
        libvirtd.add_file("vmlinuz", image), libvirtd.add_file("initramfs", _initramfs(kernel))
    )


def linux_xml(name: str, files: Linux, *, kvm: bool, devices: Sequence[str] = (PTY_SERIAL,)) -> str:
    """Return the libvirt XML of a Linux guest with these consoles."""
    boot = (
        f"<kernel>{escape(files.kernel)}</kernel><initrd>{escape(files.initramfs)}</initrd>"
        "<cmdline>console=ttyS0,115200</cmdline>"
    )
    return domain_xml(name, memory=LINUX_MIB * 1024, kvm=kvm, boot=boot, devices=devices)


def domain_xml(name: str, *, memory: int, kvm: bool, boot: str, devices: Iterable[str]) -> str:
    """Return the libvirt XML of a guest with a new UUID.

    Args:
        name: any name that libvirt takes.
        memory: in KiB.
        kvm: KVM, else TCG.
        boot: XML elements for ``<os>``.
        devices: XML elements for ``<devices>``.
    """
    return f"""\
<domain type={quoteattr("kvm" if kvm else "qemu")}>
  <name>{escape(name)}</name>
  <uuid>{uuid.uuid4()}</uuid>
  <memory unit='KiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os>
  <features><acpi/></features>
  {"<cpu mode='host-passthrough'/>" if kvm else ""}
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{escape(host.program(host.QEMU, "qemu-system-x86"))}</emulator>
    {"".join(devices)}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def kernel_directory() -> str:
    """Return where the kernel is kept; it need not exist yet."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    wanted = hashlib.sha256(repr(sorted(_MODULES)).encode()).hexdigest()[:12]
    return os.path.join(cache, "serial-console", f"kernel-{wanted}")


def fetch_kernel(progress: Callable[[str], None] = lambda _: None) -> str:
    """Return ``kernel_directory()``, first filled from Debian's archive if need be.

    The package is downloaded and unpacked as an ordinary user can; nothing is installed.

    Args:
        progress: is told what takes a while.

    Raises:
        SetupError: not an amd64 machine, or apt, the network or the disk fails.
    """
    directory = kernel_directory()
    if os.path.isdir(directory):
        return directory
    if platform.machine() != "x86_64":
        raise SetupError(
            f"the demo guest is for amd64 machines only so far; this one is {platform.machine()}"
        )
    parent = os.path.dirname(directory)
    try:
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix="download-") as work:
            ready = os.path.join(work, "ready")
            os.mkdir(ready)
            _unpack(_download(work, progress), ready)
            with contextlib.suppress(FileExistsError):  # another one was faster
                os.rename(ready, directory)
    except OSError as error:
        raise SetupError(f"cannot keep the demo guest's kernel in {parent}: {error}") from error
    return directory


def _download(work: str, progress: Callable[[str], None]) -> str:
    """Download the kernel's package into ``work`` and return its path."""
    options = ["-o", "APT::Sandbox::User="]  # user _apt cannot reach our directory
    try:
        package = _kernel_package(options, work)
        progress(f"downloading {package} (27 MB)")
        _apt(["apt-get", *options, "download", package], work)
    except SetupError:
        # The machine's package lists are missing or old, and only root could renew them.
        progress("fetching package lists of our own, then the kernel (40 MB in all)")
        os.makedirs(os.path.join(work, "apt/lists/partial"))
        os.makedirs(os.path.join(work, "apt/archives/partial"))
        options += ["-o", f"Dir::State::Lists={work}/apt/lists", "-o", f"Dir::Cache={work}/apt"]
        _apt(["apt-get", *options, "update"], work)
        _apt(["apt-get", *options, "download", _kernel_package(options, work)], work)
    found = glob.glob(os.path.join(glob.escape(work), "*.deb"))
    if not found:
        raise SetupError("apt-get downloaded no kernel package and reported no error.")
    return found[0]


def _kernel_package(options: Sequence[str], work: str) -> str:
    """Resolve the meta package, whose name stays, to the package of today's kernel."""
    for line in _apt(["apt-cache", *options, "depends", _KERNEL_PACKAGE], work).splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends":
            return name
    raise SetupError(f"apt knows no package {_KERNEL_PACKAGE}; is this Debian?")


def _apt(command: Sequence[str], work: str) -> str:
    host.program(command[0], "apt")
    try:
        done = subprocess.run(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        raise SetupError(f"{' '.join(command)} took more than {_DOWNLOAD_SECONDS:.0f} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise SetupError(
            f"{command[0]} failed with {command[-1]!r}: {' '.join(errors) or done.stderr.strip()} "
            "(are this machine's apt sources and network in order?)"
        )
    return done.stdout


def _unpack(package: str, target: str) -> None:
    """Extract the kernel and our modules from its package, flat, into ``target``."""
    wanted = {f"{module}.ko" for module in _MODULES}
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpacker:
        try:
            with tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive:
                for member in archive:
                    base = os.path.basename(member.name)
                    if base.startswith("vmlinuz-"):
                        base = "vmlinuz"
                    elif member.name.partition("/kernel/")[2] not in wanted:
                        continue
                    if source := archive.extractfile(member):
                        with open(os.path.join(target, base), "wb") as file:
                            shutil.copyfileobj(source, file)
        except tarfile.TarError as error:
            raise SetupError(f"the package {package} cannot be read: {error}") from error
    missing = {"vmlinuz", *map(os.path.basename, wanted)} - set(os.listdir(target))
    if missing:
        raise SetupError(f"the package {os.path.basename(package)} lacks {', '.join(missing)}")


def _initramfs(kernel: str) -> bytes:
    """Return the initramfs, not compressed: it is small, and TCG unpacks slowly."""
    with open(host.program("busybox", "busybox-static"), "rb") as file:
        entries = [("bin/busybox", 0o100755, file.read())]
    entries += [(name, 0o040755, b"") for name in _DIRECTORIES]
    entries += [(name, 0o100000 | mode, text.encode()) for name, (mode, text) in _FILES.items()]
    for module in map(os.path.basename, _MODULES):
        with open(os.path.join(kernel, f"{module}.ko"), "rb") as file:
            entries.append((f"lib/modules/{module}.ko", 0o100644, file.read()))
    return cpio(sorted(entries))


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return a cpio archive (``newc``, all owned by root) of (name, mode, content)."""
    archive = bytearray()
    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)

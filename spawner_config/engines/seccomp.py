"""The system calls that a local sandbox does not get, as the filter program bubblewrap loads.

What it refuses follows the spirit of the Docker Engine's default profile: mounting, other namespaces, kernel keys,
tracing of the kernel, loading code into it, clocks, and families of sockets that no namespace divides.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

# (audit architecture, first number of a foreign calling convention or None, numbers by name)
_X86_64: tuple[int, int | None, Mapping[str, int]] = (
    0xC000003E,
    0x40000000,
    {
        "socket": 41, "pivot_root": 155, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167,
        "swapoff": 168, "reboot": 169, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176,
        "quotactl": 179, "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246, "add_key": 248,
        "request_key": 249,
        "keyctl": 250, "unshare": 272, "move_pages": 279, "perf_event_open": 298, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "kcmp": 312, "finit_module": 313,
        "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426,
        "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "pidfd_getfd": 438, "mount_setattr": 442,
    },
)  # fmt: skip
_AARCH64: tuple[int, int | None, Mapping[str, int]] = (
    0xC00000B7,
    None,
    {
        "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "quotactl": 60, "acct": 89, "unshare": 97,
        "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112, "reboot": 142,
        "settimeofday": 170, "socket": 198, "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224,
        "swapoff": 225, "move_pages": 239, "perf_event_open": 241, "name_to_handle_at": 264, "open_by_handle_at": 265,
        "clock_adjtime": 266, "setns": 268, "kcmp": 272, "finit_module": 273, "bpf": 280, "userfaultfd": 282,
        "kexec_file_load": 294, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
        "pidfd_getfd": 438,
        "mount_setattr": 442,
    },
)  # fmt: skip
_BY_MACHINE = {"x86_64": _X86_64, "aarch64": _AARCH64}

# Sockets that reach the host or its hypervisor from any network namespace, or the kernel's ciphers.
_FAMILIES = {"AF_ALG": 38, "AF_VSOCK": 40}

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def program(machine: str) -> bytes | None:
    """Return the filter for ``machine`` (as ``platform.machine()`` says it); None for one whose numbers are not known
    here.

    A refused call gets EPERM. A call by a foreign architecture's convention ends the process.
    """
    if machine not in _BY_MACHINE:
        return None
    architecture, foreign, numbers = _BY_MACHINE[machine]
    refused = sorted(number for name, number in numbers.items() if name != "socket")
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if foreign is not None:
        instructions += [(_AT_LEAST, 0, 1, foreign), (_RETURN, 0, 0, _KILL_PROCESS)]
    for number in refused:
        instructions += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    # Not a socket: allow. A socket: look at its family (little-endian on both machines, so the low word comes first).
    instructions += [(_EQUAL, 1, 0, numbers["socket"]), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    for family in _FAMILIES.values():
        instructions += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT)]
    instructions.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)

"""The filter program, run by a small interpreter of the kernel's rules for it."""

from __future__ import annotations

import errno
import struct

import pytest

from spawner_config.engines import seccomp

X86_64, AARCH64 = 0xC000003E, 0xC00000B7
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


def decide(program: bytes, architecture: int, number: int, first_argument: int = 0) -> int:
    data = struct.pack(
        "<iIQ6Q", number - (1 << 32) if number >= 1 << 31 else number, architecture, 0, first_argument, *[0] * 5
    )
    code = list(struct.iter_unpack("<HBBI", program))
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x15:
            at += if_true if accumulator == value else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= value else if_false
        elif operation == 0x06:
            return int(value)
        else:
            pytest.fail(f"unknown instruction {operation:#x}")


def known(machine: str) -> bytes:
    program = seccomp.program(machine)
    assert program is not None
    return program


@pytest.mark.parametrize(
    ("machine", "architecture", "refused", "allowed", "socket"),
    [
        ("x86_64", X86_64, [165, 248, 250, 272, 308, 321, 425], [0, 1, 2, 9, 56, 57, 59, 101, 231, 257], 41),
        ("aarch64", AARCH64, [40, 217, 219, 97, 268, 280, 425], [56, 63, 64, 93, 220, 221, 222], 198),
    ],
)
def test_what_it_decides(machine: str, architecture: int, refused: list[int], allowed: list[int], socket: int) -> None:
    program = known(machine)
    for number in refused:
        assert decide(program, architecture, number) == REFUSE | errno.EPERM
    for number in allowed:
        assert decide(program, architecture, number) == ALLOW
    for family in (1, 2, 10, 16):  # Unix, IPv4, IPv6, netlink
        assert decide(program, architecture, socket, family) == ALLOW
    for family in (38, 40):  # the kernel's ciphers, the hypervisor
        assert decide(program, architecture, socket, family) == REFUSE | errno.EAFNOSUPPORT


def test_another_architectures_calls_end_the_process() -> None:
    assert decide(known("x86_64"), 0x40000003, 1) == KILL  # 32-bit
    assert decide(known("x86_64"), X86_64, 0x40000000 + 165) == KILL  # x32
    assert decide(known("aarch64"), X86_64, 165) == KILL


def test_a_machine_whose_numbers_are_unknown_has_no_program() -> None:
    assert seccomp.program("riscv64") is None

"""Reads structs of Thrift's compact protocol, in which Parquet keeps its footer and its page headers.

A struct becomes a dict, field number -> value: int, bytes, list or dict; a double stays 8 bytes. Every value takes at
least a byte of what was read, so a hostile footer becomes no more objects than it has bytes. ValueError where it
leads out or is nested too deep.
"""

from typing import Any

_MOST_DEPTH = 24
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 11, 12


def read_struct(data: bytes) -> tuple[dict[int, Any], int]:
    """The struct that these bytes begin with, and how long it is."""
    try:
        return _struct(data, 0, 0)
    except IndexError:
        raise ValueError("a struct leads out of its bytes") from None


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _MOST_DEPTH:
        raise ValueError("structs nested too deep")
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _signed(data, at)
        kind = head & 15
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if _BYTE < kind <= _I64:
        byte = data[at]  # nearly all take one
        return ((byte >> 1) ^ -(byte & 1), at + 1) if byte < 128 else _signed(data, at)
    if kind == _BINARY:
        length, at = (data[at], at + 1) if data[at] < 128 else _unsigned(data, at)
        return _slice(data, at, length)
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    if kind in (_LIST, _SET):
        return _list(data, at, depth + 1)
    if kind in (_TRUE, _FALSE, _BYTE):  # in lists a boolean is a byte of its own
        return data[at], at + 1
    if kind == _DOUBLE:
        return _slice(data, at, 8)
    if kind == _MAP and data[at] == 0:
        return {}, at + 1
    raise ValueError(f"a field of type {kind}, which Parquet does not have")


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    if depth > _MOST_DEPTH:
        raise ValueError("lists nested too deep")
    head, at = data[at], at + 1
    count, kind = head >> 4, head & 15
    if count == 15:
        count, at = _unsigned(data, at)
    if count > len(data) - at:
        raise ValueError("a list leads out of its bytes")
    values = []
    for _ in range(count):
        value, at = _value(data, at, kind, depth)
        values.append(value)
    return values, at


def _slice(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    if length > len(data) - at:
        raise ValueError("a string leads out of its bytes")
    return data[at : at + length], at + length


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) & 128:
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if shift > 63:
            raise ValueError("a number of too many bytes")
    return value | byte << shift, at + 1


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at

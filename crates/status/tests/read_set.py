#!/usr/bin/env python3
"""Reads an exact set as docs/formats/status-set.md describes it, with nothing but the standard library.

usage: read_set.py SET           prints what is in it as JSON
       read_set.py SET DELTA     prints what is in the set that the delta makes of it

It shares no code with the crate, and is slow and plain on purpose. It checks everything but the signature.
"""
import base64
import hashlib
import json
import sys


class Refused(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Refused(what)


def number(data, at, size):
    need(0 <= at and at + size <= len(data), "a number lies outside of the bytes")
    return int.from_bytes(data[at:at + size], "little")


def read_list(data, count):
    blocks = (count + 127) // 128
    directory, body = data[:10 * blocks], data[10 * blocks:]
    need(len(directory) == 10 * blocks, "the directory is cut off")
    starts = [number(directory, 10 * n + 6, 4) for n in range(blocks)] + [len(body)]
    need(starts[0] == 0 if blocks else not body, "bytes that belong to no block")
    counters = []
    for n in range(blocks):
        members = min(128, count - 128 * n)
        need(starts[n] < starts[n + 1] <= len(body), "a block lies outside of its list")
        block = body[starts[n]:starts[n + 1]]
        k, bits = block[0], int.from_bytes(block[1:], "little")
        left = 8 * (len(block) - 1)
        here = [number(directory, 10 * n, 6)]
        for _ in range(members - 1):
            quotient = 0
            while not bits & 1:
                need(left > 0, "a block ends in the middle of a counter")
                bits, left, quotient = bits >> 1, left - 1, quotient + 1
            bits, left = bits >> 1, left - 1
            distance = quotient << k | bits & (1 << k) - 1
            bits, left = bits >> k, left - k
            need(left >= 0, "a block ends in the middle of a counter")
            here.append(here[-1] + distance + 1)
        need(bits == 0 and left < 8, "a block goes on after its last counter")
        need(here[-1] < 1 << 48, "a counter has more than 48 bits")
        mean = (here[-1] - here[0] - (members - 1)) // (members - 1) if members > 1 else 0
        need(k == max(mean.bit_length() - 1, 0), "another parameter than the counters ask for")
        need(not counters or counters[-1] < here[0], "counters do not rise")
        counters += here
    return counters


def split(data, magic):
    need(data[:8] == magic, "another kind or version")
    length = number(data, 8, 8)
    need(length <= len(data), "cut off")
    return data[:length], data[length:]


def read_set(body):
    need(number(body, 24, 8) <= 253402300799000, "made after the year 9999")
    issuers = number(body, 32, 4)
    rows = [36 + 14 * n for n in range(issuers)]
    starts = [number(body, row + 6, 8) for row in rows] + [len(body)]
    need(starts[0] == 36 + 14 * issuers, "the first list does not follow the table")
    lists, last = {}, -1
    for row, start, end in zip(rows, starts, starts[1:]):
        epoch = number(body, row, 2)
        need(last < epoch, "issuers do not rise")
        need(start <= end, "lists overlap")
        lists[epoch] = read_list(body[start:end], number(body, row + 2, 4))
        last = epoch
    return {"sequence": number(body, 16, 8), "made": number(body, 24, 8), "issuers": lists}


def check_note(note, sequence, digest):
    text, _, signatures = note.decode().rpartition("\n\n")
    lines = text.split("\n")
    need(len(lines) == 4 and lines[0] == "chancery-status-set/v1", "not the note of a set")
    need(lines[2] == str(sequence) and base64.b64decode(lines[3]) == digest, "the note of another set")
    need(signatures.startswith("— "), "no signature")
    return lines[1]


def open_set(data):
    body, note = split(data, b"chanset\x01")
    content = read_set(body)
    content["trust_domain"] = check_note(note, content["sequence"], hashlib.sha256(body).digest())
    return content, body


def apply(old, old_body, data):
    body, note = split(data, b"chandlt\x01")
    need(body[40:72] == hashlib.sha256(old_body).digest(), "the delta is for another set")
    need(number(body, 16, 8) == old["sequence"] < number(body, 24, 8), "the delta leads elsewhere")
    domain = check_note(note, number(body, 24, 8), body[72:104])
    rows = [108 + 27 * n for n in range(number(body, 104, 4))]
    places = [number(body, row + at, 8) for row in rows for at in (11, 19)] + [len(body)]
    lists = dict(old["issuers"])
    for n, row in enumerate(rows):
        epoch, kind = number(body, row, 2), body[row + 2]
        removed = set(read_list(body[places[2 * n]:places[2 * n + 1]], number(body, row + 3, 4)))
        added = set(read_list(body[places[2 * n + 1]:places[2 * n + 2]], number(body, row + 7, 4)))
        if kind == 2:
            del lists[epoch]
            continue
        need((epoch in lists) == (kind == 0), "an issuer of another kind")
        before = set(lists.get(epoch, []))
        need(removed <= before and not added & before, "the delta does not fit")
        lists[epoch] = sorted(before - removed | added)
    new = {"sequence": number(body, 24, 8), "made": number(body, 32, 8), "issuers": lists}
    need(hashlib.sha256(write_set(new)).digest() == body[72:104], "the delta makes another set than it promises")
    return dict(new, trust_domain=domain)


def write_list(counters):
    directory, blocks = b"", b""
    for n in range(0, len(counters), 128):
        here = counters[n:n + 128]
        distances = [after - before - 1 for before, after in zip(here, here[1:])]
        mean = sum(distances) // len(distances) if distances else 0
        k = max(mean.bit_length() - 1, 0)
        bits, length = 0, 0
        for distance in distances:
            length += distance >> k
            bits |= (1 | (distance & (1 << k) - 1) << 1) << length
            length += 1 + k
        directory += here[0].to_bytes(6, "little") + len(blocks).to_bytes(4, "little")
        blocks += bytes([k]) + bits.to_bytes((length + 7) // 8, "little")
    return directory + blocks


def write_set(content):
    lists = [(epoch, counters, write_list(counters)) for epoch, counters in sorted(content["issuers"].items())]
    start, table = 36 + 14 * len(lists), b""
    for epoch, counters, written in lists:
        table += epoch.to_bytes(2, "little") + len(counters).to_bytes(4, "little") + start.to_bytes(8, "little")
        start += len(written)
    fields = [start, content["sequence"], content["made"]]
    head = b"chanset\x01" + b"".join(field.to_bytes(8, "little") for field in fields)
    return head + len(lists).to_bytes(4, "little") + table + b"".join(written for _, _, written in lists)


def main():
    files = [open(name, "rb").read() for name in sys.argv[1:]]
    try:
        content, body = open_set(files[0])
        need(write_set(content) == body, "not the one way to write it")
        if len(files) > 1:
            content = apply(content, body, files[1])
    except Refused as refused:
        sys.exit(f"refused: {refused}")
    print(json.dumps(content, sort_keys=True))


if __name__ == "__main__":
    main()

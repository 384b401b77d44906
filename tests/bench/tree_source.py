"""A source tree as a tar archive, made up from a seed: the same bytes on every machine and with every Python since 3.9.

Sizes, depth and contents are like those of a large C project: most files have 1 to 20 KiB, few up to 500 KiB, and their
text compresses as source code does. Only whole numbers and getrandbits() decide, so that nothing depends on the
machine's arithmetic or on how a version of Python shuffles.
"""

import io
import os
import random
import tarfile

SEED = 20261121
# A word that grep looks for in vain: the vocabulary has no such letters.
ABSENT_WORD = "xyzzyq"
TOP_NAME = "source"
DIRECTORIES_PER_1000_FILES = 75
DEPTH_MAX = 7
SYMLINK_EVERY = 100  # files
EXECUTABLE_EVERY = 40  # files
MODIFIED = 1_700_000_000  # seconds since 1970, of the first entry; each next one is a second younger
POOL_BYTES = 4 << 20
# (of 1000 files, least and most bytes)
SIZES = (
    (80, 100, 1 << 10),
    (440, 1 << 10, 4 << 10),
    (280, 4 << 10, 12 << 10),
    (140, 12 << 10, 20 << 10),
    (45, 20 << 10, 64 << 10),
    (13, 64 << 10, 200 << 10),
    (2, 200 << 10, 500 << 10),
)
SYLLABLES = "ba ce di fo gu ha ke li mo nu pa re si to vu al en is or un tra ble ment ing con pre ter".split()
PUNCTUATION = (" = ", ", ", "->", "(", ");", " + ", " ", " ", " ", "; ", " == ", ".")
SUFFIXES = (".c", ".c", ".c", ".h", ".h", ".txt", ".py", ".S")


class Numbers:
    """Whole numbers from a seed."""

    def __init__(self, seed):
        self.bits = random.Random(seed).getrandbits

    def below(self, limit):
        return self.bits(32) % limit

    def one_of(self, choices):
        return choices[self.below(len(choices))]


def vocabulary(numbers, count=3000):
    return ["".join(numbers.one_of(SYLLABLES) for _ in range(1 + numbers.below(4))) for _ in range(count)]


def text_pool(numbers):
    """Lines of indented words and signs. Half of the words are of the few that every file uses, as in any language."""
    words = vocabulary(numbers)
    common = words[:60]
    lines, size = [], 0
    while size < POOL_BYTES:
        parts = ["\t" * numbers.below(4)]
        for _ in range(numbers.below(8)):
            parts += [numbers.one_of(common if numbers.below(2) else words), numbers.one_of(PUNCTUATION)]
        lines.append("".join(parts))
        size += len(lines[-1]) + 1
    return ("\n".join(lines) + "\n").encode("ascii")[:POOL_BYTES]


def size_of_a_file(numbers):
    place = numbers.below(1000)
    for share, least, most in SIZES:
        if place < share:
            return least + numbers.below(most - least)
        place -= share
    raise AssertionError("the shares of SIZES do not add up to 1000")


def directory_paths(numbers, words, count):
    """Each below an earlier one; the top first."""
    paths = [(TOP_NAME,)]
    while len(paths) < count:
        parent = numbers.one_of(paths)
        if len(parent) < DEPTH_MAX:
            paths.append((*parent, f"{numbers.one_of(words)}{len(paths)}"))
    return paths


def entries(file_count, seed):
    """[(path as a tuple, size or None of a directory, target or None)] in the order in which tar would find them."""
    numbers = Numbers(seed)
    words = vocabulary(numbers)
    directories = directory_paths(numbers, words, max(2, file_count * DIRECTORIES_PER_1000_FILES // 1000))
    found = [(path, None, None) for path in directories]
    for i in range(file_count):
        # Some directories are large, many small.
        directory = directories[numbers.below(numbers.below(len(directories)) + 1)]
        name = f"{numbers.one_of(words)}{i}{numbers.one_of(SUFFIXES)}"
        found.append(((*directory, name), size_of_a_file(numbers), None))
        if i % SYMLINK_EVERY == SYMLINK_EVERY - 1:
            found.append(((*directory, f"link{i}"), 0, name))
    return sorted(found, key=lambda entry: entry[0])


def write_tar(path, file_count, seed=SEED):
    """Writes the archive and returns how many entries it has, its top included. An interrupted one is never seen."""
    pool = text_pool(Numbers(seed + 1))
    numbers = Numbers(seed + 2)
    listed = entries(file_count, seed)
    files = 0
    new = path.with_name(f".{path.name}.new")
    with tarfile.open(new, "w", format=tarfile.GNU_FORMAT) as archive:
        for i, (parts, size, target) in enumerate(listed):
            info = tarfile.TarInfo("/".join(parts))
            info.mtime = MODIFIED + i
            if size is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif target is not None:
                info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, target
                archive.addfile(info)
            else:
                files += 1
                info.mode = 0o755 if files % EXECUTABLE_EVERY == 0 else 0o644
                info.size = size
                start = numbers.below(len(pool) - size)
                # Its first line is its own, so that no two files are the same.
                content = f"// {info.name}\n".encode() + pool[start : start + size]
                archive.addfile(info, io.BytesIO(content[:size]))
    os.replace(new, path)
    return len(listed)

# SPDX-License-Identifier: Apache-2.0
"""examples/recommender/prepare.py: rows made of small shops, which the tests
write as R and as CSV files, against the recipe done purchase by purchase."""
import bz2
import collections
import datetime
import gzip
import importlib
import lzma
import math
import statistics
import struct
import subprocess
import sys

import numpy as np
import pytest

FRIDAY = 1291190400  # 2010-12-01 08:00, the first day of the data set
PACKERS = {"plain": bytes, "xz": lzma.compress, "gzip": gzip.compress,
           "bzip2": bz2.compress}
FIELDS = ["customer", "item", "country", "hour", "weekday", "month", "price",
          "customer_group", "previous_item"]

Line = collections.namedtuple("Line", "invoice item text quantity when price "
                              "customer country")


@pytest.fixture
def prepare(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "examples" / "recommender"))
    return importlib.import_module("prepare")


@pytest.fixture
def rda(prepare):
    return prepare.rda


def shop(n=400, seed=1):
    """Lines of a shop; some are returns, gifts, or of nobody."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(n):
        item = int(rng.integers(30))
        lines.append(Line(
            f"5{i:05d}", f"{20 + item // 7}{item:03d}", "A, \"CUP\"",
            int(rng.choice([6, 1, 1, -2])),
            FRIDAY + 60 * int(rng.integers(80 * 24 * 60)),
            round(float(rng.choice([.42, 1.25, 2.55, 9.95, 0])), 2),
            float(rng.choice([17850, 13047, 12583, 12346, math.nan])),
            str(rng.choice(["United Kingdom", "EIRE"]))))
    return lines


# ---- files -----------------------------------------------------------------

def integer(value):
    return struct.pack(">i", value)


def text(value):
    if value is None:
        return integer(9) + integer(-1)
    data = value.encode()
    return integer(9 | 1 << 18) + integer(len(data)) + data


def texts(values):
    return integer(16) + integer(len(values)) + b"".join(map(text, values))


def reals(values, flags=0):
    values = np.asarray(values, ">f8")
    return integer(14 | flags) + integer(len(values)) + values.tobytes()


symbols = []  # of the file that is being made


def symbol(name):
    """A name in full, or a reference to where it stands already."""
    if name in symbols:
        return integer(255 | (symbols.index(name) + 1) << 8)
    symbols.append(name)
    return integer(1) + text(name)


def attribute(name, value):
    return integer(2 | 0x400) + symbol(name) + value


def factor(values):
    levels = sorted(set(values))
    codes = np.array([levels.index(value) + 1 for value in values], ">i4")
    return (integer(13 | 0x200) + integer(len(values)) + codes.tobytes()
            + attribute("levels", texts(levels))
            + attribute("class", texts(["factor"])) + integer(254))


def wrapped(values):
    """As R saves a column that it has looked at: (values . [0, 0])."""
    kind = (integer(2) + symbol("wrap_real") + integer(2) + symbol("base")
            + integer(2) + integer(13) + integer(1) + integer(14)
            + integer(254))
    state = (integer(2) + reals(values) + integer(13) + integer(2)
             + bytes(8))
    return integer(238) + kind + state + integer(254)


def rda_bytes(lines, version=3, is_factor=False, is_wrapped=False):
    symbols.clear()
    name = integer(2 | 0x400) + symbol("onlineretail")
    columns = {
        "InvoiceNo": texts([x.invoice for x in lines]),
        "StockCode": (factor if is_factor else texts)([x.item
                                                       for x in lines]),
        "Description": texts([x.text if i % 9 else None
                              for i, x in enumerate(lines)]),
        "Quantity": (wrapped if is_wrapped else reals)([x.quantity
                                                        for x in lines]),
        "InvoiceDate": reals([x.when for x in lines], 0x200)
        + attribute("class", texts(["POSIXct", "POSIXt"])) + integer(254),
        "UnitPrice": reals([x.price for x in lines]),
        "CustomerID": reals([x.customer for x in lines]),
        "Country": texts([x.country for x in lines])}
    frame = (integer(19 | 0x200) + integer(len(columns))
             + b"".join(columns.values())
             + attribute("names", texts(list(columns)))
             + attribute("row.names", integer(13) + integer(2)
                         + integer(-2**31) + integer(-len(lines)))
             + attribute("class", texts(["data.frame"]))
             + integer(254))
    native = integer(5) + b"UTF-8" if version == 3 else b""
    return (f"RDX{version}\nX\n".encode() + integer(version)
            + integer(0x040300) + integer(0x030500) + native
            + name + frame + integer(254))


def csv_bytes(lines,
              shape="{0.month}/{0.day}/{0.year} {0.hour}:{0.minute:02d}",
              header="InvoiceNo,StockCode,Description,Quantity,InvoiceDate,"
                     "UnitPrice,CustomerID,Country"):
    rows = [header]
    for x in lines:
        when = (datetime.datetime(1970, 1, 1)
                + datetime.timedelta(seconds=x.when))
        customer = "" if math.isnan(x.customer) else f"{x.customer:.1f}"
        description = '"' + x.text.replace('"', '""') + '"'
        rows.append(f"{x.invoice},{x.item},{description},{x.quantity},"
                    f"{shape.format(when)},{x.price},{customer},{x.country}")
    return ("\r\n".join(rows) + "\r\n").encode("latin-1")


def read_rows(path):
    data = path.read_bytes()
    assert data[:8] == b"FLCLICKS"
    version, fields, n, n_train, customer, zero, size = struct.unpack_from(
        "<IIQQIIQ", data, 8)
    assert (version, customer, zero, size) == (1, 0, 0, len(data))
    names, sizes = [], []
    for i in range(fields):
        name, values = struct.unpack_from("<16sQ", data, 48 + 24 * i)
        names.append(name.rstrip(b"\0").decode())
        sizes.append(values)
    at = 48 + 24 * fields
    values = np.frombuffer(data, "<u4", n * fields, at).reshape(n, fields)
    labels = np.frombuffer(data, np.uint8, n, at + 4 * n * fields)
    assert len(data) == at + n * (4 * fields + 1)
    return names, sizes, values, labels, n_train


def run(prepare, tmp_path, data, *options):
    source, rows = tmp_path / "source", tmp_path / "rows"
    source.write_bytes(data)
    prepare.main([str(source), str(rows), "--quiet", *options])
    return read_rows(rows)


# ---- the recipe, line by line ----------------------------------------------

def positives(lines):
    """(customer, item, country, hour, weekday, month, price bucket, group,
    previous item) of each first purchase of a day, in order; what was bought,
    as (day, customer, item); the days."""
    good = [x for x in lines if x.quantity > 0 and x.price > 0
            and not math.isnan(x.customer)]
    good.sort(key=lambda x: x.when)
    first_day = good[0].when // 86400
    seen, rows, days, last = set(), [], [], {}
    prices = collections.defaultdict(list)
    for x in good:
        day = x.when // 86400 - first_day
        if (day, x.customer, x.item) in seen:
            continue
        seen.add((day, x.customer, x.item))
        prices[x.item].append(x.price)
        baskets = last.setdefault(x.customer, {})
        before = [baskets[d] for d in sorted(baskets) if d < day]
        baskets[day] = x.item
        days.append(day)
        rows.append([x.customer, x.item, x.country, x.when % 86400 // 3600,
                     (day + 2) % 7, day // 30, None,
                     (x.customer, x.item[:3]),
                     (before[-1] if before else "~", x.item)])
    for row in rows:
        median = statistics.median(prices[row[1]])
        row[6] = min(max(int(math.log2(median) * 2 + 8), 0), 23)
    return rows, seen, days


def test_positives_are_those_of_the_recipe(prepare, tmp_path):
    lines = shop()
    names, sizes, values, labels, n_train = run(prepare, tmp_path,
                                                rda_bytes(lines))
    rows, _, _ = positives(lines)
    assert names == FIELDS
    assert len(labels) == 5 * len(rows)
    assert labels.reshape(-1, 5).tolist() == [[1, 0, 0, 0, 0]] * len(rows)
    assert n_train == 5 * int(.9 * len(rows))
    found = values[::5]
    for field in range(9):
        # The same value where the recipe has the same, in the same order
        # where nothing comes from negatives.
        wanted = [row[field] for row in rows]
        pairs = set(zip(wanted, found[:, field].tolist()))
        assert len(pairs) == len(set(wanted)) == len({b for _, b in pairs})
        assert [a for a, _ in sorted(pairs, key=lambda p: p[1])] == sorted(
            a for a, _ in pairs)
    assert sizes == [len(set(values[:, i].tolist())) for i in range(9)]
    assert all(values[:, i].max() == size - 1 for i, size in enumerate(sizes))


def test_negatives_were_on_sale_and_not_bought(prepare, tmp_path):
    lines = shop(800)
    _, _, values, _, _ = run(prepare, tmp_path, rda_bytes(lines),
                             "--negatives", "7")
    rows, seen, days = positives(lines)
    assert len(values) == 8 * len(rows)
    items = sorted({row[1] for row in rows})
    sold = collections.defaultdict(set)
    for row in rows:
        sold[row[5]].add(row[1])
    drawn = collections.Counter()
    for i, (row, day) in enumerate(zip(rows, days)):
        for value in values[8 * i + 1:8 * i + 8]:
            item = items[value[1]]
            assert item in sold[row[5]]
            assert (day, row[0], item) not in seen
            drawn[item] += 1
        assert (values[8 * i:8 * i + 8][:, [0, 2, 3, 4, 5]]
                == values[8 * i][[0, 2, 3, 4, 5]]).all()
    assert len(drawn) == len(items)
    assert max(drawn.values()) < 3 * min(drawn.values())


@pytest.mark.parametrize("packer", PACKERS)
def test_every_compression_gives_the_same_rows(prepare, tmp_path, packer):
    lines = shop(100)
    run(prepare, tmp_path, rda_bytes(lines))
    plain = (tmp_path / "rows").read_bytes()
    run(prepare, tmp_path, PACKERS[packer](rda_bytes(lines)))
    assert (tmp_path / "rows").read_bytes() == plain


@pytest.mark.parametrize("data", [
    lambda lines: rda_bytes(lines, version=2),
    lambda lines: rda_bytes(lines, is_factor=True),
    lambda lines: rda_bytes(lines, is_wrapped=True),
    csv_bytes,
    lambda lines: b"\xef\xbb\xbf" + csv_bytes(lines),
    lambda lines: csv_bytes(lines).replace(b"EIRE", b"EIR\xc9"),
    lambda lines: csv_bytes(lines, "{0.day}/{0.month}/{0.year} "
                            "{0.hour:02d}:{0.minute:02d}:00"),
    lambda lines: csv_bytes(lines, "{0:%Y-%m-%d %H:%M:%S}"),
    lambda lines: csv_bytes(lines, "{0:%Y-%m-%dT%H:%M}")])
def test_every_form_of_the_source_gives_the_same_rows(prepare, tmp_path,
                                                      data):
    lines = shop(200)
    run(prepare, tmp_path, rda_bytes(lines))
    plain = (tmp_path / "rows").read_bytes()
    run(prepare, tmp_path, data(lines))
    assert (tmp_path / "rows").read_bytes() == plain


def test_columns_are_found_by_name(prepare, tmp_path):
    lines = shop(60)
    run(prepare, tmp_path, csv_bytes(lines))
    plain = (tmp_path / "rows").read_bytes()
    other = "Invoice,StockCode,Text,Quantity,InvoiceDate,UnitPrice," \
        "Customer ID,Country"
    run(prepare, tmp_path, csv_bytes(lines, header=other))
    assert (tmp_path / "rows").read_bytes() == plain


def test_seed_changes_negatives_only(prepare, tmp_path):
    lines = shop(200)
    first = run(prepare, tmp_path, rda_bytes(lines))
    again = run(prepare, tmp_path, rda_bytes(lines))
    other = run(prepare, tmp_path, rda_bytes(lines), "--seed", "8")
    assert (first[2] == again[2]).all()
    assert (first[2] != other[2]).any()
    assert (first[2][::5, :7] == other[2][::5, :7]).all()


def test_draws_are_splitmix64(prepare):
    # The generator's published first outputs for seed 0, upper halves.
    assert prepare.draws(0, 0, 3).tolist() == [
        0xE220A8397B1DCDAF >> 32, 0x6E789E6AA1B965F4 >> 32,
        0x06C45D188009454F >> 32]
    assert (prepare.draws(5, 2, 4) == prepare.draws(5, 0, 6)[2:]).all()


def test_customer_who_bought_everything_keeps_what_was_drawn(prepare,
                                                             tmp_path):
    lines = [Line(str(i), f"1000{i}", "x", 1, FRIDAY + i, 1.0, 7.0, "EIRE")
             for i in range(4)]
    _, _, values, labels, _ = run(prepare, tmp_path, rda_bytes(lines))
    assert len(labels) == 20 and values[:, 1].max() < 4


# ---- what is refused -------------------------------------------------------

def refused(prepare, tmp_path, data, *options):
    with pytest.raises(SystemExit) as error:
        run(prepare, tmp_path, data, *options)
    assert not list(tmp_path.glob("rows*"))
    assert str(error.value).startswith("prepare.py: ")
    return str(error.value)


@pytest.mark.parametrize("packer", PACKERS)
def test_source_that_is_cut_anywhere_is_refused(prepare, tmp_path, packer):
    data = PACKERS[packer](rda_bytes(shop(40)))
    cuts = range(0, len(data), max(1, len(data) // 60))
    for cut in cuts:
        refused(prepare, tmp_path, data[:cut])


def test_damaged_source_is_refused_or_read(prepare, tmp_path):
    data = rda_bytes(shop(20))
    rng = np.random.default_rng(9)
    for _ in range(400):
        wrong = bytearray(data)
        for at in rng.integers(0, 60 if rng.random() < .5 else len(data), 3):
            wrong[at] = rng.integers(256)
        try:
            run(prepare, tmp_path, bytes(wrong))
        except SystemExit as error:
            assert str(error).startswith("prepare.py: ")


@pytest.mark.parametrize("item, match", [
    (integer(14) + integer(2**31 - 1), "a vector of 2147483647 values"),
    (integer(14) + integer(-1) + integer(2**31 - 1) + integer(0),
     "a vector of 9223372032559808512 values"),
    (integer(14) + integer(-5), "a vector of -5 values"),
    (integer(16) + integer(1) + integer(9) + integer(2**30) + bytes(8),
     "a text of 1073741824 bytes"),
    (integer(16) + integer(1) + bytes(8), "no text at byte"),
    (integer(19) + integer(1) + integer(255 | 9 << 8), "reference 9"),
    (integer(19) + integer(20000) + bytes(80000), "a list of 20000"),
    (integer(4), "an object of type 4"),
    ((integer(19) + integer(1)) * 1000, "nested more than 64 deep"),
    (integer(238) + integer(2) + symbol("mmap_real") + integer(254)
     + integer(254) + integer(254), "class 'mmap_real'"),
    (integer(238) + integer(2) + symbol("compact_intseq") + integer(254)
     + reals([1e18, 1, 1]) + integer(254), "a sequence of 1000000000000000000"
     )])
def test_object_that_cannot_be_is_refused(prepare, tmp_path, item, match):
    symbols.clear()
    data = (b"RDX2\nX\n" + integer(2) + bytes(8) + attribute("x", item)
            + integer(254))
    assert match in refused(prepare, tmp_path, data)


@pytest.mark.parametrize("data, match", [
    (b"", "has no column"), (b"RDX4\nX\n", "want RDX2 or RDX3"),
    (b"RDX3\nA\n" + bytes(40), "want XDR"),
    (b"RDX3\nX\n" + integer(9) + bytes(40), "version 9"),
    (b"\x7fELF\0\0", "neither an .rda nor a CSV"),
    (b"\x1f\x8b\x08garbage", "cannot be unpacked"),
    (csv_bytes(shop(9)).replace(b"Country", b"Land"), "no column Country"),
    (csv_bytes(shop(9)) + b"1,2,3\r\n", "line 11: 3 values, want 8"),
    (csv_bytes(shop(9), "yesterday"), "got 'yesterday'"),
    (csv_bytes(shop(9), "1/2/2011 8:26"), "--dates"),
    (csv_bytes(shop(9), "13/13/2011 8:26"), "can be the month"),
    (csv_bytes([]), "no purchase"),
    (rda_bytes([x._replace(customer=math.nan) for x in shop(9)]),
     "no purchase")])
def test_source_that_is_none_is_refused(prepare, tmp_path, data, match):
    assert match in refused(prepare, tmp_path, data)


def test_bombs_are_not_unpacked(rda):
    for pack in (lzma.compress, gzip.compress, bz2.compress):
        with pytest.raises(rda.DataError, match="more than 1000 bytes"):
            rda.unpack(pack(bytes(100000)), 1000)


def test_day_may_be_named_first(prepare, tmp_path):
    lines = csv_bytes(shop(9), "1/2/2011 8:26")
    american = run(prepare, tmp_path, lines, "--dates", "mdy")
    german = run(prepare, tmp_path, lines, "--dates", "dmy")
    assert (american[2][:, 4] == german[2][:, 4]).all()  # one day, one value
    assert prepare.seconds_of(["1/2/2011 8:26"], "dmy")[0] == 1296548760
    assert prepare.seconds_of(["1/2/2011 8:26"], "mdy")[0] == 1293956760


@pytest.mark.parametrize("options, match", [
    ([], "SOURCE"), (["a", "b", "--negatives", "0"], "want 1..100"),
    (["a", "b", "--test", "1"], "below 1"),
    (["a", "b", "--seed", "-1"], "--seed")])
def test_wrong_options_are_named(prepare, capsys, options, match):
    with pytest.raises(SystemExit) as error:
        prepare.main(options)
    assert error.value.code == 2
    assert match in capsys.readouterr().err


def test_file_that_is_not_there_or_cannot_be_written_is_named(prepare,
                                                              tmp_path):
    with pytest.raises(SystemExit, match="nowhere.rda: No such file"):
        prepare.main([str(tmp_path / "nowhere.rda"), "rows"])
    source = tmp_path / "source"
    source.write_bytes(rda_bytes(shop(50)))
    with pytest.raises(SystemExit, match="folder.*No such file"):
        prepare.main([str(source), str(tmp_path / "folder" / "rows"),
                      "--quiet"])


def test_program_says_what_it_does(root, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(lzma.compress(rda_bytes(shop(50))))
    result = subprocess.run(
        [sys.executable, root / "examples" / "recommender" / "prepare.py",
         source, tmp_path / "rows"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    assert result.returncode == 0 and result.stderr == ""
    assert "50 lines" in result.stdout and "previous_item" in result.stdout

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make training rows of a shop's purchase lines: who buys what?

  prepare.py SOURCE ROWS

SOURCE is the "Online Retail" data set (541,909 lines): the .rda file of the R
package onlineretail, or the CSV file with the columns InvoiceNo, StockCode,
Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country. ROWS is the
file that the recommender example and quality_embedding read.

A positive row is the first purchase of an item by a customer on a day. Behind
each come --negatives rows with items that were on sale in the same 30 days and
that this customer did not buy that day. Rows are in the order of time; the
last tenth (--test) is for testing. Fields: customer, item, country, hour,
weekday, month (30 days), price bucket of the item, customer x first letters of
the item, and the item x what the customer bought last on an earlier day.

ROWS, all numbers little-endian:
  offset 0   8 bytes  "FLCLICKS"
         8   u32      version, 1
        12   u32      number of fields F, 1..64
        16   u64      number of rows N
        24   u64      number of rows T to train on, the first ones, <= N
        32   u32      which field names the customer, or 2^32 - 1
        36   u32      0
        40   u64      size of the file
        48   F x 24   per field: name, 16 bytes padded with zeros; u64 number
                      of values V, 1..2^32 - 1
  then       N x F    u32, row by row: the value of each field, below its V
  then       N        u8, labels 0 or 1
Needs numpy (Debian: python3-numpy), no R.
"""
import argparse
import csv
import datetime
import io
import os
import pathlib
import struct
import sys
import time

import numpy as np

import rda
from rda import DataError, Texts

MAGIC, VERSION, MAX_FIELDS = b"FLCLICKS", 1, 64
COLUMNS = ("StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID",
           "Country")
NAMES = ("customer", "item", "country", "hour", "weekday", "month", "price",
         "customer_group", "previous_item")
DAY = 86400
ROUNDS = 8  # to find a negative that was not bought
MAX_CSV = 1 << 30


# ---- the columns of the source ---------------------------------------------

def texts_of(values):
    """Texts of a list of str."""
    known = {}
    codes = np.array([known.setdefault(value, len(known)) for value in values],
                     np.int32)
    return Texts(codes, list(known))


def number(text):
    """A float; NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return np.nan


def date_order(texts):
    """Where month and day stand in dates with slashes, "mdy" or "dmy"."""
    firsts, seconds = set(), set()
    for text in texts:
        parts = text.split("/", 2)
        if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit():
            firsts.add(int(parts[0]))
            seconds.add(int(parts[1]))
    if max(firsts, default=0) > 12 and max(seconds, default=0) > 12:
        raise DataError("InvoiceDate: neither the first nor the second number "
                        "can be the month")
    if max(firsts, default=0) > 12:
        return "dmy"
    if max(seconds, default=0) > 12 or not firsts:
        return "mdy"
    raise DataError("InvoiceDate: day and month cannot be told apart, "
                    "--dates says which is first")


def formats_of(order):
    slashed = "%m/%d/%Y" if order == "mdy" else "%d/%m/%Y"
    short = slashed.replace("%Y", "%y")
    return [f"{date}{gap}{clock}" for date in (slashed, short, "%Y-%m-%d")
            for gap in (" ", "T") for clock in ("%H:%M", "%H:%M:%S")]


def seconds_of(texts, order):
    """Seconds since 1970 of each text; the clock is the shop's."""
    order = order or date_order(texts)
    formats = formats_of(order)
    epoch = datetime.datetime(1970, 1, 1)
    result = np.empty(len(texts))
    for i, text in enumerate(texts):
        for place, shape in enumerate(formats):
            try:
                when = datetime.datetime.strptime(text, shape)
            except ValueError:
                continue
            result[i] = (when - epoch).total_seconds()
            formats.insert(0, formats.pop(place))  # the next is alike
            break
        else:
            raise DataError(f"InvoiceDate: got {text!r}, want a date and time "
                            f"as 12/31/2010 8:26 or 2010-12-31 08:26:00")
    return result


def read_csv(data, order):
    """{name: column} of a CSV file's bytes."""
    if b"\0" in data:
        raise DataError("is neither an .rda nor a CSV file: it has zero bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip().replace(" ", "") for name in next(rows, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise DataError(f"has no column {', '.join(missing)}")
        places = [header.index(name) for name in COLUMNS]
        parts = [[] for _ in COLUMNS]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"line {rows.line_num}: {len(row)} values, "
                                f"want {len(header)}")
            for part, place in zip(parts, places):
                part.append(row[place])
    except csv.Error as error:
        raise DataError(f"line {rows.line_num}: {error}") from None
    columns = dict(zip(COLUMNS, parts))
    found = {name: texts_of(columns[name]) for name in ("StockCode",
                                                        "Country")}
    for name in ("Quantity", "UnitPrice", "CustomerID"):
        found[name] = np.array([number(value) for value in columns[name]])
    dates = texts_of(columns["InvoiceDate"])
    found["InvoiceDate"] = (seconds_of(dates.levels, order)[dates.codes]
                            if len(dates) else np.empty(0))
    return found


def read_source(path, order=None):
    """{name: column} of a file, the columns of COLUMNS."""
    data = pathlib.Path(path).read_bytes()
    is_packed = data[:6] == b"\xfd7zXZ\x00" or data[:2] == b"\x1f\x8b" \
        or data[:3] == b"BZh"
    if not is_packed and data[:3] != b"RDX":
        if len(data) > MAX_CSV:
            raise DataError(f"has {len(data)} bytes, want at most {MAX_CSV}")
        return read_csv(data, order)
    columns = rda.data_frame(data)
    for name in COLUMNS:
        if name not in columns:
            raise DataError(f"has no column {name}")
        wants_text = name in ("StockCode", "Country")
        if isinstance(columns[name], Texts) != wants_text:
            raise DataError(f"{name}: want {'text' if wants_text else 'numbers'}")
    return {name: columns[name] for name in COLUMNS}


# ---- rows ------------------------------------------------------------------

def dense(values):
    """Values as 0, 1, ... in their order, and how many there are."""
    distinct, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64), len(distinct)


def sorted_codes(texts, keep):
    """Codes of the rows that are kept, in the order of the texts, and these
    texts."""
    used, codes = np.unique(texts.codes[keep], return_inverse=True)
    levels = [texts.levels[code] for code in used]
    order = sorted(range(len(levels)), key=levels.__getitem__)
    rank = np.empty(len(levels), np.int64)
    rank[order] = np.arange(len(levels))
    return rank[codes], [levels[i] for i in order]


class Purchases:
    """The positives, in the order of time."""

    def __init__(self, columns):
        price, customer = columns["UnitPrice"], columns["CustomerID"]
        when = columns["InvoiceDate"]
        keep = (np.isfinite(customer) & (customer > 0) & np.isfinite(when)
                & (columns["Quantity"] > 0) & (price > 0) & np.isfinite(price)
                & (columns["StockCode"].codes >= 0)
                & (columns["Country"].codes >= 0))
        keep &= np.abs(np.where(keep, when, 0)) < 2**40
        keep = np.flatnonzero(keep)
        if not keep.size:
            raise DataError("has no purchase with customer, quantity and price")
        keep = keep[np.argsort(when[keep], kind="stable")]
        self.when, price = when[keep].astype(np.int64), price[keep]
        self.customer, self.customers = dense(customer[keep])
        self.item, items = sorted_codes(columns["StockCode"], keep)
        self.country, _ = sorted_codes(columns["Country"], keep)
        self.items = len(items)
        self.day = self.when // DAY
        self.day -= self.day[0]
        _, first = np.unique(self.keys(self.item), return_index=True)
        first.sort()
        for name in ("when", "customer", "item", "country", "day"):
            setattr(self, name, getattr(self, name)[first])
        self.price = price_buckets(self.item, price[first], self.items)
        self.group, self.groups = dense([name[:3] for name in items])
        self.month = self.day // 30

    def __len__(self):
        return len(self.item)

    def keys(self, item, rows=slice(None)):
        """A number for (day, customer, item)."""
        basket = self.day[rows] * self.customers + self.customer[rows]
        if int(basket.max(initial=0)) >= 2**62 // self.items:
            raise DataError("spans too many days")
        return (basket * self.items).reshape(
            basket.shape + (1,) * (item.ndim - 1)) + item

    def previous(self):
        """What the customer bought last on an earlier day; `items` when there
        is nothing."""
        order = np.argsort(self.customer, kind="stable")
        customer, day = self.customer[order], self.day[order]
        place = np.arange(len(order))
        is_new = np.r_[True, customer[1:] != customer[:-1]]
        begins = np.r_[True, day[1:] != day[:-1]] | is_new
        start = np.maximum.accumulate(np.where(begins, place, 0))
        first = np.maximum.accumulate(np.where(is_new, place, 0))
        found = np.where(start > first, self.item[order][start - 1],
                         self.items)
        result = np.empty_like(found)
        result[order] = found
        return result


def price_buckets(item, price, items):
    """Half octaves of each item's median price."""
    order = np.lexsort((price, item))
    count = np.bincount(item, minlength=items)
    end = np.cumsum(count)
    low = end - count + np.maximum(count - 1, 0) // 2
    high = end - count + count // 2
    price = price[order]
    median = np.where(count > 0, (price[np.minimum(low, len(price) - 1)]
                                  + price[np.minimum(high, len(price) - 1)])
                      / 2, 1)
    return np.clip((np.log2(median) * 2 + 8).astype(np.int64), 0, 23)


def draws(seed, first, n):
    """n 32-bit numbers (SplitMix64, the numbers from `first` on of the
    stream `seed`): the same on every machine and for every numpy."""
    with np.errstate(over="ignore"):
        x = (np.arange(first + 1, first + n + 1, dtype=np.uint64)
             * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(32)


def negatives(purchases, per_positive, seed):
    """[positives, per_positive] items that were on sale. One that was bought
    is drawn again, 8 times at most: a customer may have bought them all."""
    bought = np.unique(purchases.keys(purchases.item))
    result = np.zeros((len(purchases), per_positive), np.int64)
    drawn = 0

    def some(pool, n):
        nonlocal drawn
        drawn += n
        return pool[(draws(seed, drawn - n, n) * np.uint64(len(pool))
                     >> np.uint64(32)).astype(np.int64)]

    for month in np.unique(purchases.month):
        rows = np.flatnonzero(purchases.month == month)
        pool = np.unique(purchases.item[rows])
        found = some(pool, rows.size * per_positive).reshape(rows.size, -1)
        for _ in range(ROUNDS):
            keys = purchases.keys(found, rows)
            place = np.searchsorted(bought, keys)
            was = bought[np.minimum(place, bought.size - 1)] == keys
            if not was.any():
                break
            found[was] = some(pool, int(was.sum()))
        result[rows] = found
    return result


class Rows:
    """What is written: values [n, fields] with `sizes`, labels, n_train."""

    def __init__(self, purchases, per_positive, test, seed):
        p, each = purchases, per_positive + 1
        item = np.concatenate(
            [p.item[:, None], negatives(p, per_positive, seed)], 1).ravel()

        def repeated(values):
            return np.repeat(values, each)

        columns = [
            repeated(p.customer), item, repeated(p.country),
            repeated(p.when % DAY // 3600), repeated((p.day + 2) % 7),
            repeated(p.month), p.price[item],
            repeated(p.customer) * p.groups + p.group[item],
            repeated(p.previous()) * p.items + item]
        self.values = np.empty((item.size, len(columns)), "<u4")
        self.sizes = []
        for place, values in enumerate(columns):
            self.values[:, place], size = dense(values)
            self.sizes.append(size)
        self.labels = np.zeros(item.size, np.uint8)
        self.labels[::each] = 1
        self.n_train = int(len(p) * (1 - test)) * each

    def write(self, file):
        n, fields = self.values.shape
        head = 48 + 24 * fields
        file.write(MAGIC + struct.pack(
            "<IIQQIIQ", VERSION, fields, n, self.n_train, 0, 0,
            head + n * (4 * fields + 1)))
        for name, size in zip(NAMES, self.sizes):
            file.write(struct.pack("<16sQ", name.encode(), size))
        file.write(self.values.data)
        file.write(self.labels.data)


def save(rows, path):
    """Write the file as a whole or not at all."""
    path = pathlib.Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "xb") as file:
            rows.write(file)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


# ---- the program -----------------------------------------------------------

def share(text):
    value = number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"got {text}, want above 0 and "
                                         f"below 1")
    return value


def whole(least, most):
    def parse(text):
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"got {text}, want {least}.."
                                             f"{most}")
        return int(text)
    return parse


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help=".rda or CSV file")
    parser.add_argument("rows", metavar="ROWS", help="file to write")
    parser.add_argument("--negatives", type=whole(1, 100), default=4,
                        metavar="N", help="per positive (4)")
    parser.add_argument("--test", type=share, default=.1, metavar="SHARE",
                        help="of the rows, for testing (0.1)")
    parser.add_argument("--seed", type=whole(0, 2**64 - 1), default=7,
                        metavar="N", help="of the negatives (7)")
    parser.add_argument("--dates", choices=("mdy", "dmy"),
                        help="where the month is in a CSV file's 1/2/2011")
    parser.add_argument("--quiet", action="store_true", help="say nothing")
    return parser.parse_args(argv)


def prepare(options, say):
    say(f"reading {options.source}")
    columns = read_source(options.source, options.dates)
    say(f"{len(columns['Quantity'])} lines; first purchases of a day")
    purchases = Purchases(columns)
    say(f"{len(purchases)} purchases of {purchases.customers} customers, "
        f"{purchases.items} items, {int(purchases.day[-1]) + 1} days; rows")
    rows = Rows(purchases, options.negatives, options.test, options.seed)
    say(f"{len(rows.labels)} rows, {rows.n_train} to train on; writing "
        f"{options.rows}")
    save(rows, options.rows)
    say("values " + ", ".join(f"{name} {size}" for name, size in
                              zip(NAMES, rows.sizes))
        + f"; {sum(rows.sizes)} in all")


def main(argv=None):
    options = arguments(argv)
    begin = time.monotonic()

    def say(text):
        if not options.quiet:
            print(f"[{time.monotonic() - begin:5.1f} s] {text}", flush=True)
    try:
        prepare(options, say)
    except DataError as error:
        sys.exit(f"prepare.py: {options.source}: {error}")
    except OSError as error:
        sys.exit(f"prepare.py: {error.filename or options.rows}: "
                 f"{error.strerror or error}")
    except MemoryError:
        sys.exit(f"prepare.py: {options.source}: out of memory")


if __name__ == "__main__":
    main()

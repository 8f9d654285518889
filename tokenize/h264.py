"""What an H.264 packet holds, read from its headers: its place in the order of display, and whether others need it.

    avcC (SPS, PPS) ─▶ Headers ─▶ read(packet): Coded(period, order, skippable)

Only plain streams are read: progressive frames, one SPS and one PPS, a stated depth of reordering, a packet per
frame, no gap. Everything else, damage included, raises NotPlain. A frame is skippable only if FFmpeg's decoder accepts
the header of its first slice (libavcodec/h264_slice.c); whatever follows, the decoder then gives one frame for it and
no error. Names as in ITU-T H.264, 7.3; Exp-Golomb codes are its ue(v) and se(v).
"""

from dataclasses import dataclass
from struct import Struct

SLICE, IDR, SEI, SPS, PPS, DELIMITER, FILLER = 1, 5, 6, 7, 8, 9, 12  # nal_unit_type
_P, _B, _I = 0, 1, 2  # slice_type modulo 5
_LENGTH = Struct(">I")
_HEADER_BYTES = 32  # more than the header of a slice takes that has no table of weights
_EXTENDED_SAR = 255
_CHROMA_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
MOST_UNITS = 4096  # NAL units of a packet; a stranger's file may have millions
MOST_REORDERED = 15  # frames; FFmpeg takes a frame that comes 16 late for the start of another count


class NotPlain(Exception):
    """Which frame a packet becomes cannot be told without decoding all of them."""


@dataclass(slots=True)  # not frozen: one is made for every packet, and that would take three times as long
class Coded:
    """A packet's frame. Frames are shown by period, then by order."""

    period: int  # 1 from the first IDR on, 2 from the second …
    order: int  # PicOrderCnt
    skippable: bool  # no other frame needs it, and it would decode to exactly one frame


class Bits:
    """Bits from the first one on. Raises NotPlain past the last one."""

    __slots__ = ("_left", "_rest", "_size")

    def __init__(self, data: bytes) -> None:
        self._rest = int.from_bytes(data, "big")
        self._size = len(data)
        self._left = 8 * self._size

    def take(self, count: int) -> int:
        """The next `count` bits, u(n)."""
        left = self._left - count
        if left < 0:
            raise NotPlain("a header ends too early")
        value = self._rest >> left
        self._rest ^= value << left
        self._left = left
        return value

    def unsigned(self) -> int:
        """The next ue(v)."""
        rest = self._rest
        left = 2 * rest.bit_length() - self._left - 1
        if left < 0:
            raise NotPlain("a header ends too early")
        code = rest >> left
        self._rest = rest ^ code << left
        self._left = left
        return code - 1

    def signed(self) -> int:
        """The next se(v)."""
        code = self.unsigned()
        return code + 1 >> 1 if code & 1 else -(code >> 1)

    def taken(self) -> int:
        """Bytes begun."""
        return self._size - self._left // 8

    def ends(self) -> bool:
        """Whether only the trailing bits of a NAL unit are left: a one, then zeros to the end of its byte."""
        return 0 < self._left <= 8 and self._rest == 1 << self._left - 1


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Of the SPS."""

    sps_id: int
    frame_num_bits: int
    order_bits: int
    reorder: int
    most_qp: int  # 51 at 8 bits a sample, and 6 more for every further bit


@dataclass(frozen=True, slots=True)
class _Picture:
    """Of the PPS."""

    pps_id: int
    cabac: bool
    references: tuple[int, int]
    weighted: tuple[bool, bool]  # P and B slices have a table of weights
    qp: int
    deblocking: bool


class Headers:
    """Reads the packets of one stream in their order; `extradata` is its avcC box. Raises NotPlain."""

    def __init__(self, extradata: bytes) -> None:
        sps, pps = _parameter_sets(extradata)
        self._sets = (sps, pps)
        self._sequence = _sequence(Bits(_unescaped(sps[1:])))
        self._picture = _picture(Bits(_unescaped(pps[1:])), self._sequence)
        self.reorder = self._sequence.reorder  # frames that may be decoded before, and shown after, a frame
        self._period = 0
        self._frame_num = self._high = self._low = 0  # of the last reference frame

    def read(self, packet: memoryview) -> Coded:
        """The frame of the next packet."""
        nal, alone, head = self._first_slice(packet)
        bits = Bits(_unescaped(head))
        first_block, slice_type, pps_id = bits.unsigned(), bits.unsigned(), bits.unsigned()
        if first_block or slice_type > 9 or pps_id != self._picture.pps_id:
            raise NotPlain("a slice of another kind")
        self._count_frame(bits.take(self._sequence.frame_num_bits), nal)
        if nal & 31 == IDR:
            bits.unsigned()
        order = self._count_order(bits.take(self._sequence.order_bits), nal)
        skippable = alone and nal == SLICE and self._starts(bits, slice_type % 5)
        # Two zero bytes in the header are escaped there, or a start code that damage made: rare, and not looked into.
        return Coded(self._period, order, skippable and b"\0\0" not in head[: bits.taken() + 1])

    def _first_slice(self, packet: memoryview) -> tuple[int, bool, bytes]:
        """The slices' NAL header, whether the packet holds nothing but slices, and the first one's beginning."""
        nal, alone, head, at = 0, True, b"", 0
        for _ in range(MOST_UNITS):
            if at > len(packet) - 4:
                break
            start = at + 4
            at = start + _LENGTH.unpack_from(packet, at)[0]
            if at > len(packet) or at < start + 2:
                raise NotPlain("a NAL unit of another length than its packet has room for")
            header = packet[start]
            kind = header & 31
            if kind in (SLICE, IDR):
                if nal not in (0, header) or (nal and packet[start + 1] > 127):  # first_mb_in_slice is 0 again
                    raise NotPlain("slices of several kinds or frames in a packet")
                nal, head = header, head or bytes(packet[start + 1 : min(at, start + _HEADER_BYTES)])
            elif kind in (SPS, PPS):
                alone = False
                if packet[start:at] not in self._sets:
                    raise NotPlain("other parameter sets than in the header")
            elif kind == SEI:
                alone = False
            elif kind not in (DELIMITER, FILLER):
                raise NotPlain(f"a NAL unit of type {kind}")
        if at != len(packet) or not nal or nal > 127 or nal == IDR:  # the forbidden bit; an IDR frame without reference
            raise NotPlain("no slice, or one that cannot be")
        return nal, alone, head

    def _count_frame(self, frame_num: int, nal: int) -> None:
        if nal & 31 == IDR:
            self._period += 1
            following = 0
        else:
            following = self._frame_num + 1 & (1 << self._sequence.frame_num_bits) - 1
        if frame_num != following or not self._period:
            raise NotPlain("a gap in the frames")
        if nal & 96:  # nal_ref_idc
            self._frame_num = frame_num

    def _count_order(self, low: int, nal: int) -> int:
        """PicOrderCnt from its lower bits (8.2.1.1)."""
        whole = 1 << self._sequence.order_bits
        if nal & 31 == IDR:
            self._high, self._low = 0, low
        high = self._high
        if self._low - low >= whole // 2:
            high += whole
        elif low - self._low > whole // 2:
            high -= whole
        if nal & 96:
            self._high, self._low = high, low
        return high + low

    def _starts(self, bits: Bits, kind: int) -> bool:
        """Whether FFmpeg accepts the rest of the header of a slice that nobody refers to."""
        try:
            return self._lists(bits, kind) and self._levels(bits, kind)
        except NotPlain:
            return False

    def _lists(self, bits: Bits, kind: int) -> bool:
        """The lists of references: how many, in which order."""
        if kind == _I:
            return True
        if kind > _I or self._picture.weighted[kind]:
            return False
        counts = list(self._picture.references)
        if kind == _B:
            bits.take(1)  # direct_spatial_mv_pred_flag
        if bits.take(1):  # num_ref_idx_active_override_flag
            counts[: kind + 1] = [bits.unsigned() + 1 for _ in range(kind + 1)]
        for count in counts[: kind + 1]:
            if bits.take(1) and not self._reordered(bits, count):  # ref_pic_list_modification_flag
                return False
        return max(counts) <= 16

    def _reordered(self, bits: Bits, count: int) -> bool:
        for _ in range(count + 1):
            change = bits.unsigned()
            if change >= 3:
                return change == 3
            bits.unsigned()
        return False

    def _levels(self, bits: Bits, kind: int) -> bool:
        """CABAC's start, QP, and the deblocking filter."""
        if self._picture.cabac and kind != _I and bits.unsigned() > 2:
            return False
        if not 0 <= self._picture.qp + bits.signed() <= self._sequence.most_qp:
            return False
        if not self._picture.deblocking:
            return True
        off = bits.unsigned()  # disable_deblocking_filter_idc
        return off == 1 or (off in (0, 2) and abs(bits.signed()) <= 6 and abs(bits.signed()) <= 6)


def _unescaped(nal: bytes) -> bytes:
    return nal.replace(b"\0\0\3", b"\0\0")


def _parameter_sets(avcc: bytes) -> tuple[bytes, bytes]:
    """The SPS and the PPS of an avcC box (ISO/IEC 14496-15, 5.3.3.1) with lengths of four bytes."""
    if len(avcc) < 8 or avcc[0] != 1 or avcc[4] & 3 != 3 or avcc[5] & 31 != 1:
        raise NotPlain("not one SPS in an avcC box")
    middle = 8 + int.from_bytes(avcc[6:8], "big")
    end = middle + 3 + int.from_bytes(avcc[middle + 1 : middle + 3], "big")
    sps, pps = avcc[8:middle], avcc[middle + 3 : end]
    if avcc[middle : middle + 1] != b"\1" or end > len(avcc) or len(sps) < 4 or not pps:
        raise NotPlain("not one PPS in an avcC box")
    if sps[0] & 159 != SPS or pps[0] & 159 != PPS:
        raise NotPlain("other NAL units in an avcC box")
    return sps, pps


def _sequence(bits: Bits) -> _Sequence:
    """7.3.2.1.1 and, for the depth of reordering, E.1.1."""
    profile, _, sps_id = bits.take(8), bits.take(16), bits.unsigned()
    depth = _luma_depth(bits) if profile in _CHROMA_PROFILES else 8
    frame_num_bits = bits.unsigned() + 4
    kind, order_bits = bits.unsigned(), bits.unsigned() + 4
    bits.unsigned()  # max_num_ref_frames
    gaps, _, _, frames_only = bits.take(1), bits.unsigned(), bits.unsigned(), bits.take(1)
    bits.take(1)  # direct_8x8_inference_flag
    if bits.take(1):  # frame_cropping_flag
        [bits.unsigned() for _ in range(4)]
    if kind or gaps or not frames_only or max(frame_num_bits, order_bits) > 16 or sps_id > 31 or not bits.take(1):
        raise NotPlain("fields, gaps, another kind of order, or no VUI")
    reorder = _depth_of_reordering(bits)
    if not 1 <= reorder <= MOST_REORDERED or not bits.ends():
        raise NotPlain("nothing is reordered, or too much")
    return _Sequence(sps_id, frame_num_bits, order_bits, reorder, 51 + 6 * (depth - 8))


def _luma_depth(bits: Bits) -> int:
    chroma = bits.unsigned()
    depth, _ = bits.unsigned() + 8, bits.unsigned()
    if chroma > 2 or depth > 14 or bits.take(2):  # lossless; scaling matrices
        raise NotPlain("4:4:4, lossless, or matrices of its own")
    return depth


def _depth_of_reordering(bits: Bits) -> int:
    """max_num_reorder_frames of the VUI, which is read to its end."""
    if bits.take(1) and bits.take(8) == _EXTENDED_SAR:
        bits.take(32)
    if bits.take(1):  # overscan_info_present_flag
        bits.take(1)
    if bits.take(1) and bits.take(5) & 1:  # video_signal_type_present_flag, colour_description_present_flag
        bits.take(24)
    if bits.take(1):  # chroma_loc_info_present_flag
        bits.unsigned(), bits.unsigned()
    if bits.take(1):  # timing_info_present_flag
        bits.take(65)
    rates = [_rates(bits) for _ in ("NAL", "VCL") if bits.take(1)]
    bits.take(2 if rates else 1)  # low_delay_hrd_flag, pic_struct_present_flag
    if not bits.take(1):  # bitstream_restriction_flag
        raise NotPlain("the depth of reordering is not told")
    bits.take(1)
    [bits.unsigned() for _ in range(4)]
    reorder, buffered = bits.unsigned(), bits.unsigned()
    if buffered < reorder:
        raise NotPlain("more frames reordered than kept")
    return reorder


def _rates(bits: Bits) -> int:
    """How many hrd_parameters (E.1.2) hold, which are passed over."""
    count = bits.unsigned() + 1
    if count > 32:
        raise NotPlain("rates that nobody has")
    bits.take(8)
    for _ in range(count):
        bits.unsigned(), bits.unsigned(), bits.take(1)
    bits.take(20)
    return count


def _picture(bits: Bits, sequence: _Sequence) -> _Picture:
    """7.3.2.2."""
    pps_id, sps_id, cabac, orders, groups = (
        bits.unsigned(), bits.unsigned(), bits.take(1), bits.take(1), bits.unsigned()
    )  # fmt: skip
    references = bits.unsigned() + 1, bits.unsigned() + 1
    weighted = bool(bits.take(1)), bits.take(2) == 1
    qp = sequence.most_qp - 25 + bits.signed()  # as FFmpeg counts: from 0, deeper samples from further up
    bits.signed(), bits.signed()  # pic_init_qs, chroma_qp_index_offset
    deblocking, _, redundant = bits.take(1), bits.take(1), bits.take(1)
    if orders or groups or redundant or pps_id > 255 or sps_id != sequence.sps_id or max(references) > 16:
        raise NotPlain("slice groups, redundant pictures, or another SPS")
    return _Picture(pps_id, bool(cabac), references, weighted, qp, bool(deblocking))

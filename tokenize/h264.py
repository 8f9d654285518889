"""What an H.264 packet holds, read from its headers: its place in the order of display, and whether others need it.

    avcC (SPS, PPS) ─▶ Headers ─▶ read(packet): (order, skippable)

Only plain streams are read: progressive frames, one SPS and one PPS, a stated depth of reordering, a packet per
frame, no gap. Everything else, damage included, raises NotPlain. A frame is skippable only if FFmpeg's decoder accepts
the header of its first slice (libavcodec/h264_slice.c); whatever follows, the decoder then gives one frame for it and
no error. Names as in ITU-T H.264, 7.3; Exp-Golomb codes are its ue(v) and se(v).
"""

from struct import Struct

from toto.tokenize.h264_parameters import PPS, SPS, Bits, NotPlain, parameter_sets, picture_of, sequence_of, unescaped

SLICE, IDR, SEI, DELIMITER, FILLER = 1, 5, 6, 9, 12  # nal_unit_type
_P, _B, _I = 0, 1, 2  # slice_type modulo 5
_LENGTH = Struct(">I")
_HEADER_BYTES = 32  # more than the header of a slice takes that has no table of weights
_ORDER_BITS = 40  # of PicOrderCnt, more than any stream counts to: frames are shown by period, then by it
MOST_UNITS = 4096  # NAL units of a packet; a stranger's file may have millions


def _golomb_bits(value: int) -> int:
    """What ue(v) takes."""
    return 2 * (value + 1).bit_length() - 1


def _openings() -> dict[int, tuple[int, int]]:
    """By a slice's first byte: slice_type modulo 5, and how many bits it takes with first_mb_in_slice, which is 0."""
    found: dict[int, tuple[int, int]] = {}
    for slice_type in range(10):
        width = 1 + _golomb_bits(slice_type)
        bits, rest = 1 << width - 1 | slice_type + 1, 8 - width
        found |= dict.fromkeys(range(bits << rest, bits + 1 << rest), (slice_type % 5, width))
    return found


_OPENINGS = _openings()


class Headers:
    """Reads the packets of one stream in their order; `extradata` is its avcC box. Raises NotPlain."""

    def __init__(self, extradata: bytes) -> None:
        sps, pps = parameter_sets(extradata)
        self._sets = (sps, pps)
        self._sequence = sequence_of(Bits(unescaped(sps[1:])))
        self._picture = picture_of(Bits(unescaped(pps[1:])), self._sequence)
        self.reorder = self._sequence.reorder  # frames that may be decoded before, and shown after, a frame
        self._period = 0  # 1 from the first IDR on, 2 from the second …
        self._frame_num = self._high = self._low = 0  # of the last reference frame
        pps_bits = _golomb_bits(self._picture.pps_id)
        self._fixed_bits = pps_bits + self._sequence.frame_num_bits
        self._pps_mask = (1 << pps_bits) - 1
        self._frame_nums = 1 << self._sequence.frame_num_bits

    def read(self, packet: memoryview) -> tuple[int, bool]:
        """Of the next packet's frame: its order in display, and whether it can be skipped.

        It can if no other frame needs it, and it would decode to exactly one frame.
        """
        nal, alone, head = self._first_slice(packet)
        opening = _OPENINGS.get(head[0])
        if opening is None:
            raise NotPlain("a slice of another kind")
        kind, width = opening
        bits = Bits(unescaped(head))
        fixed = bits.take(width + self._fixed_bits)  # first_mb_in_slice, slice_type, pps_id, frame_num
        pps_code, frame_num = divmod(fixed, self._frame_nums)
        if pps_code & self._pps_mask != self._picture.pps_id + 1:
            raise NotPlain("a slice of another picture")
        self._count_frame(frame_num, nal)
        if nal & 31 == IDR:
            bits.unsigned()
        order = self._count_order(bits.take(self._sequence.order_bits), nal)
        skippable = alone and nal == SLICE and self._starts(bits, kind)
        # Two zero bytes in the header are escaped there, or a start code that damage made: rare, and not looked into.
        skippable = skippable and b"\0\0" not in head[: bits.taken() + 1]
        return (self._period << _ORDER_BITS) + order, skippable

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
            following = (self._frame_num + 1) % self._frame_nums
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

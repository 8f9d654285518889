"""What an H.264 stream says of itself once: its SPS and PPS, from an avcC box (ISO/IEC 14496-15, 5.3.3.1).

    extradata ─▶ parameter_sets ─▶ sps, pps (bytes) ─▶ sequence_of, picture_of: what headers of slices are read with

Only plain streams are read: progressive frames, one SPS and one PPS, a stated depth of reordering. Everything else,
damage included, raises NotPlain. Names as in ITU-T H.264, 7.3; Exp-Golomb codes are its ue(v) and se(v).
"""

from dataclasses import dataclass

SPS, PPS = 7, 8  # nal_unit_type
_EXTENDED_SAR = 255
_CHROMA_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
MOST_REORDERED = 15  # frames; FFmpeg takes a frame that comes 16 late for the start of another count


class NotPlain(Exception):
    """Which frame a packet becomes cannot be told without decoding all of them."""


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
class Sequence:
    """Of the SPS."""

    sps_id: int
    frame_num_bits: int
    order_bits: int
    reorder: int
    most_qp: int  # 51 at 8 bits a sample, and 6 more for every further bit


@dataclass(frozen=True, slots=True)
class Picture:
    """Of the PPS."""

    pps_id: int
    cabac: bool
    references: tuple[int, int]
    weighted: tuple[bool, bool]  # P and B slices have a table of weights
    qp: int
    deblocking: bool


def unescaped(nal: bytes) -> bytes:
    return nal.replace(b"\0\0\3", b"\0\0")


def parameter_sets(avcc: bytes) -> tuple[bytes, bytes]:
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


def sequence_of(bits: Bits) -> Sequence:
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
    return Sequence(sps_id, frame_num_bits, order_bits, reorder, 51 + 6 * (depth - 8))


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


def picture_of(bits: Bits, sequence: Sequence) -> Picture:
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
    return Picture(pps_id, bool(cabac), references, weighted, qp, bool(deblocking))

"""Opening a media container that a stranger made, and choosing its video stream.

Only demuxers that read nothing but the file itself are let in: a playlist or a concat script named `.mp4`
could otherwise make FFmpeg read other files of this machine or open connections.
"""

from contextlib import closing
from itertools import islice

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from toto.tokenize.clip import SourceError, one_line
from toto.tokenize.input_file import local_path, open_binary, still_readable
from toto.tokenize.resize import check_size
from toto.tokenize.transient import ERRNOS

# Left out on purpose: concat, hls, dash, image2 (patterns over files), imf, sdp, rtsp, lavfi, subtitles.
# The audio formats are in so that a song is told as `no_video`; the *_pipe ones are single pictures.
DEMUXERS = (
    "mov,matroska,avi,asf,flv,live_flv,mpegts,mpeg,mpegvideo,m4v,h261,h263,h264,hevc,vvc,vc1,cavsvideo,dirac,"
    "ivf,obu,av1,ogg,nut,mxf,gxf,wtv,rm,dv,nsv,nuv,pmp,roq,bink,smk,swf,yuv4mpegpipe,"
    "gif,apng,mjpeg,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,j2k_pipe,"
    "mp3,wav,flac,aac,ac3,eac3,amr,aiff,au,caf,w64"
)
_OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
_NOT_FOOTAGE = Disposition.attached_pic | Disposition.timed_thumbnails


def open_container(uri: str) -> InputContainer:
    """The container of a local path, an fsspec URI or a part of a file, opened for reading.

    Raises SourceError `missing` or `open_error`, TransientError, or MemoryError. Metadata may be in any encoding.
    """
    path = local_path(uri)
    # "file:" keeps FFmpeg from taking part of a name ("-x", "a:b") for an option or a protocol.
    file = open_binary(uri) if path is None else f"file:{path}"
    try:
        return av.open(file, "r", metadata_errors="ignore", options=dict(_OPTIONS))
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        if path is not None and error.errno in ERRNOS:
            still_readable(path)
        raise SourceError("open_error", _without_path(error)) from error


def open_video(uri: str) -> InputContainer | None:
    """As `open_container`; None for a single picture under a video's name, as downloaders leave them."""
    container = open_container(uri)
    if not container.format.name.endswith("_pipe"):
        return container
    with closing(container):
        try:
            packets = (packet for packet in container.demux(video=0) if packet.size)
            is_one = len(list(islice(packets, 2))) == 1
        except (av.error.FFmpegError, IndexError):
            is_one = False
    return None if is_one else open_container(uri)


def video_stream(container: InputContainer) -> VideoStream:
    """The stream with the largest pictures, the default one among equals; cover art does not count.

    Raises SourceError `no_video`, or `unsupported` when nothing can decode it or it is protected.
    """
    footage = [s for s in container.streams.video if not s.disposition & _NOT_FOOTAGE]
    decodable = [s for s in footage if s.codec_context is not None]
    sized = [s for s in decodable if s.width > 0 and s.height > 0]
    if footage and not decodable:
        raise SourceError("unsupported", "no decoder for the video stream")
    if not sized:
        raise SourceError("no_video", "no video stream" if not footage else "the video stream has no size")
    best = max(sized, key=lambda s: (s.width * s.height, bool(s.disposition & Disposition.default), -s.index))
    if container.format.name == "asf" and {"ASF_Protection_Type", "encryption"} & container.metadata.keys():
        raise SourceError("unsupported", "the file is protected (ASF DRM)")
    check_size(best.width, best.height)
    return best


def _without_path(error: av.error.FFmpegError) -> str:
    return one_line(type(error)(error.errno or 0, error.strerror or ""))

"""Why each unreadable file of the test media is unreadable; every one was looked at by hand.

Files that are not named here decode. Keys are relative to the media folder.
"""

REASONS = {
    # videos
    "video_hard/result.webm": "empty",  # 0 bytes
    "video_hard/git_lfs_pointer.mp4": "open_error",  # 130 bytes of text
    "video_hard/sample_malformed_free_box.mp4": "open_error",  # a box of length 3: no moov is found
    "video_hard/invalid_userdata.mp4": "no_frames",  # a header of 5,544 frames, and not one of them
    "video_hard/zero_empty_stsc.mp4": "decode_error",  # 2 of 1,040 packets are there, neither decodes
    "video_hard/invalid-bitstream.webm": "decode_error",  # none of 51 packets decodes
    # Common Encryption: 24 frames in the clear, then 24 that decode to noise. A teaser is not the video.
    "video_hard/mov-frag-encrypted.mp4": "unsupported",
    "video_hard/wmv_drm.wmv": "unsupported",  # ASF DRM: 115 frames decode, all of them to noise
    "audio_only/sample_audio_only.mp4": "no_video",
    "audio_only/test_audio_16000.mp3": "no_video",
    "audio_only/bbb_1ch_12kHz_q10_vorbis.webm": "no_video",
    # pictures
    "image_hard/empty.jpg": "empty",
    "image_hard/broken.png": "open_error",  # noise after the first 8 bytes
    "image_hard/unknown_compression_method.png": "open_error",
    "image_hard/png_decompression_dos.png": "open_error",  # a text chunk that would inflate to 64 MiB
    "image_hard/zero_width.gif": "open_error",
    "image_hard/null_height.jpg": "open_error",
    "image_hard/d15b71b8cebe35a57cc6e996cc09218b.jpg": "open_error",  # fuzzed: no frame header
    "image_hard/75e4bd7544a85af6438497980b62fba5.jpg": "open_error",  # fuzzed: no frame header
    "image_hard/truncated_jpeg.jpg": "decode_error",
    "image_hard/truncated_image.png": "decode_error",
    "image_hard/broken_data_stream.png": "decode_error",
    "image_hard/missing-sos.jpg": "decode_error",
    "image_hard/corrupt.jpg": "decode_error",
    "image_hard/crash-1185209cf7655b5aed8ae5e77784dfdd18ab59e9.tif": "decode_error",
    "image_hard/crash-4fb027452e6988530aa5dabee76eecacb3b79f8a.j2k": "decode_error",
    "image_hard/decompression_bomb.gif": "unsupported",  # 44 bytes that claim 4,364,696,535 pixels
    "image_hard/reallybig.bmp": "unsupported",  # claims 6,000,000,000,000 pixels
}

# Videos, animated pictures among them, that keep 1 to 15 frames at stride 4: `too_short` where min_frames is 16.
TOO_SHORT = frozenset(
    {
        "image_hard/delay.png",
        "image_hard/dispose_prev.gif",
        "image_hard/iss634.gif",
        "image_hard/mode_16bit.png",
        "image_hard/no_palette.gif",
        "video_hard/-video-with-dash-.mp4",
        "video_hard/SAR-2by3.mp4",
        "video_hard/animated.gif",
        "video_hard/annex-b.mp4",
        "video_hard/av1-1-b8-03-sizeup.mp4",
        "video_hard/bbb_176x144_128kbps_15fps_h263.3gp",
        "video_hard/bear-vp9-odd-dimensions.webm",
        "video_hard/bt601_full_range.mp4",
        "video_hard/bt601_limited_range.mp4",
        "video_hard/corrupted.mp4",
        "video_hard/demo.mp4",
        "video_hard/displaymatrix.mp4",
        "video_hard/dolbyVision-hdr.MOV",
        "video_hard/h264-mjpeg.mkv",
        "video_hard/h264_10bits.mp4",
        "video_hard/h265_bframes.mp4",
        "video_hard/h265_video.mp4",
        "video_hard/hlg10-color-test.mp4",
        "video_hard/iibbibb_editlist_videoonly.mp4",
        "video_hard/mov_neg_first_pts_discard.mp4",
        "video_hard/mpeg2_field_encoding.mp4",
        "video_hard/nasa_13013_rotated.mp4",
        "video_hard/no-initial-keyframe.ts",
        "video_hard/packed_bframes.avi",
        "video_hard/sample-with-large-length.avi",
        "video_hard/sample.flv",
        "video_hard/sample_android_slow_motion.mp4",
        "video_hard/sample_av1.mp4",
        "video_hard/sample_fragmented.mp4",
        "video_hard/sample_h262_mpeg_audio.ts",
        "video_hard/sample_h264.ts",
        "video_hard/sample_mdat_too_long.mp4",
        "video_hard/sample_portrait.mp4",
        "video_hard/sample_with_invalid_nalu.mp4",
        "video_hard/test_non_zero_start.mp4",
        "video_hard/test_yuv422p.mp4",
        "video_hard/testsrc-hevc.mp4",
        "video_hard/testsrc2_odd_height_and_width_444.mp4",
        "video_hard/testsrc2_odd_height_and_width_vp9.mp4",
        "video_hard/testvid_1022ms.mp4",
        "video_hard/unordered.mov",
        "video_hard/video_0.mov",
        "video_hard/video_180.mov",
        "video_hard/video_90.mov",
        "video_hard/video_rotation_90.mp4",
        "video_hard/vp90-2-02-size-08x08.mp4",
        "video_hard/vp90-2-05-resize.mp4",
        "video_hard/vp91-2-04-yuv444.mp4",
        "video_hard/vp92-2-20-12bit-yuv420.mp4",
        "video_real/other/big_buck_bunny_432_433.webm",
        "video_real/other/example1.mp4",
        "video_real/other/part_0.mp4",
        "video_real/other/vid1.mp4",
    }
)

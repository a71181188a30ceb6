"""Times of the large models of `candle-models time` in torch, bf16 with random weights, on one GPU.

    python3 scripts/torch-models.py [bert vit unet flux]

Each model is written in torch's modules with the sizes of tests/candle_models/src/cases/large.rs, attention by
scaled_dot_product_attention. Median of 11 calls after 3: as they are (eager) and as a CUDA graph. A call is from inputs on the
host to results on the host, as candle-trt's is.
"""

import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

DTYPE, DEVICE = torch.bfloat16, "cuda"
FIRST, COUNTED = 3, 11


def heads(x, n):
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def attend(q, k, v, n, mask=None):
    x = F.scaled_dot_product_attention(heads(q, n), heads(k, n), heads(v, n), attn_mask=mask)
    return x.transpose(1, 2).flatten(2)


class Encoder(nn.Module):
    """A layer of BERT (norms behind) or of ViT (norms before)."""

    def __init__(self, width, inner, n, before):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.n, self.before = n, before

    def forward(self, x, mask=None):
        y = self.first(x) if self.before else x
        x = x + self.o(attend(self.q(y), self.k(y), self.v(y), self.n, mask))
        if self.before:
            return x + self.down(F.gelu(self.up(self.second(x))))
        x = self.first(x)
        return self.second(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(30522, 768), nn.Embedding(512, 768), nn.Embedding(2, 768)
        self.norm = nn.LayerNorm(768)
        self.layers = nn.ModuleList(Encoder(768, 3072, 12, False) for _ in range(12))

    def forward(self, ids, kinds, kept):
        place = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.words(ids) + self.places(place) + self.kinds(kinds))
        mask = torch.where(kept == 1, 0.0, torch.finfo(DTYPE).min).to(DTYPE)[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 1024, 16, 16)
        self.token, self.places = nn.Parameter(torch.zeros(1, 1, 1024)), nn.Parameter(torch.zeros(1, 197, 1024))
        self.layers = nn.ModuleList(Encoder(1024, 4096, 16, True) for _ in range(24))
        self.norm, self.head = nn.LayerNorm(1024), nn.Linear(1024, 1000)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class Resnet(nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.first, self.second = nn.GroupNorm(32, inner, 1e-5), nn.GroupNorm(32, outer, 1e-5)
        self.conv1, self.conv2 = nn.Conv2d(inner, outer, 3, padding=1), nn.Conv2d(outer, outer, 3, padding=1)
        self.time = nn.Linear(1280, outer)
        self.short = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x, time):
        y = self.conv1(F.silu(self.first(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.short(x) + self.conv2(F.silu(self.second(y)))


class Cross(nn.Module):
    def __init__(self, width, context):
        super().__init__()
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.k, self.v = (nn.Linear(context, width, bias=False) for _ in range(2))

    def forward(self, x, context):
        return self.o(attend(self.q(x), self.k(context), self.v(context), 8))


class Spatial(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(32, width, 1e-6)
        self.enter, self.leave = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.own, self.text = Cross(width, width), Cross(width, 768)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.up, self.down = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, image, text):
        x = self.enter(self.norm(image))
        shape = x.shape
        x = x.flatten(2).transpose(1, 2)
        y = self.norms[0](x)
        x = x + self.own(y, y)
        x = x + self.text(self.norms[1](x), text)
        y, gate = self.up(self.norms[2](x)).chunk(2, -1)
        x = x + self.down(y * F.gelu(gate))
        return image + self.leave(x.transpose(1, 2).reshape(shape))


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        wide, cross = [320, 640, 1280, 1280], [True, True, True, False]
        self.time = nn.Sequential(nn.Linear(320, 1280), nn.SiLU(), nn.Linear(1280, 1280))
        self.enter = nn.Conv2d(4, 320, 3, padding=1)
        self.down, self.up, kept, width = nn.ModuleList(), nn.ModuleList(), [320], 320
        for i, (outer, has) in enumerate(zip(wide, cross)):
            for _ in range(2):
                self.down.append(nn.ModuleList([Resnet(width, outer)] + [Spatial(outer)] * has))
                width = outer
                kept.append(outer)
            if i < 3:
                self.down.append(nn.ModuleList([nn.Conv2d(width, width, 3, 2, 1)]))
                kept.append(outer)
        self.middle = nn.ModuleList([Resnet(1280, 1280), Spatial(1280), Resnet(1280, 1280)])
        for i, (outer, has) in reversed(list(enumerate(zip(wide, cross)))):
            for j in range(3):
                block = [Resnet(width + kept.pop(), outer)] + [Spatial(outer)] * has
                if j == 2 and i > 0:
                    block.append(nn.Conv2d(outer, outer, 3, padding=1))
                self.up.append(nn.ModuleList(block))
                width = outer
        self.norm, self.leave = nn.GroupNorm(32, 320), nn.Conv2d(320, 4, 3, padding=1)

    @staticmethod
    def run(block, x, time, text):
        for part in block:
            if isinstance(part, Resnet):
                x = part(x, time)
            elif isinstance(part, Spatial):
                x = part(x, text)
            elif part.stride == (1, 1):
                x = part(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            else:
                x = part(x)
        return x

    def forward(self, x, text):
        wave = torch.exp(torch.arange(160, device=x.device) * (-math.log(10000) / 160)) * 37.0
        time = self.time(torch.cat([wave.cos(), wave.sin()]).to(DTYPE).expand(len(x), -1))
        x = self.enter(x)
        kept = [x]
        for block in self.down:
            x = self.run(block, x, time, text)
            kept.append(x)
        x = self.run(self.middle, x, time, text)
        for block in self.up:
            x = self.run(block, torch.cat([x, kept.pop()], 1), time, text)
        return self.leave(F.silu(self.norm(x)))


WIDTH, HEADS = 3072, 24


def turned(x, angles):
    pairs = x.unflatten(-1, (-1, 1, 2)).float()
    return (angles[..., 0] * pairs[..., 0] + angles[..., 1] * pairs[..., 1]).flatten(-2).to(x.dtype)


class Stream(nn.Module):
    def __init__(self):
        super().__init__()
        self.mod, self.qkv, self.o = nn.Linear(WIDTH, 6 * WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q, self.k = nn.RMSNorm(128, 1e-6), nn.RMSNorm(128, 1e-6)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def before(self, x, vec):
        self.parts = self.mod(F.silu(vec))[:, None].chunk(6, -1)
        y = (1 + self.parts[1]) * F.layer_norm(x, (WIDTH,)) + self.parts[0]
        q, k, v = (heads(t, HEADS) for t in self.qkv(y).chunk(3, -1))
        return self.q(q), self.k(k), v

    def after(self, x, y):
        _, _, gate, shift, scale, last = self.parts
        x = x + gate * self.o(y)
        y = (1 + scale) * F.layer_norm(x, (WIDTH,)) + shift
        return x + last * self.down(F.gelu(self.up(y), approximate="tanh"))


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.mod, self.enter, self.leave = (
            nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 7 * WIDTH), nn.Linear(5 * WIDTH, WIDTH))
        self.q, self.k = nn.RMSNorm(128, 1e-6), nn.RMSNorm(128, 1e-6)

    def forward(self, x, vec, angles):
        shift, scale, gate = self.mod(F.silu(vec))[:, None].chunk(3, -1)
        y = self.enter((1 + scale) * F.layer_norm(x, (WIDTH,)) + shift)
        qkv, inner = y.split([3 * WIDTH, 4 * WIDTH], -1)
        q, k, v = (heads(t, HEADS) for t in qkv.chunk(3, -1))
        y = F.scaled_dot_product_attention(turned(self.q(q), angles), turned(self.k(k), angles), v)
        y = torch.cat([y.transpose(1, 2).flatten(2), F.gelu(inner, approximate="tanh")], -1)
        return x + gate * self.leave(y)


class Flux(nn.Module):
    def __init__(self):
        super().__init__()
        mlp = lambda n: nn.Sequential(nn.Linear(n, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.image, self.text = nn.Linear(64, WIDTH), nn.Linear(4096, WIDTH)
        self.time, self.guide, self.pooled = mlp(256), mlp(256), mlp(768)
        self.double_blocks = nn.ModuleList(nn.ModuleList([Stream(), Stream()]) for _ in range(19))
        self.single = nn.ModuleList(Single() for _ in range(38))
        self.mod, self.leave = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 64)

    @staticmethod
    def wave(t):
        angle = 1000 * t.float()[:, None] * torch.exp(torch.arange(128, device=t.device) * (-math.log(10000) / 128))
        return torch.cat([angle.cos(), angle.sin()], -1).to(DTYPE)

    @staticmethod
    def angles(places):
        parts = []
        for i, n in enumerate((16, 56, 56)):
            a = places[..., i, None].float() * 10000.0 ** (-torch.arange(0, n, 2, device=places.device) / n)
            parts.append(torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()], -1).unflatten(-1, (2, 2)))
        return torch.cat(parts, -3)[:, None]

    def forward(self, image, places, text, text_places, time, pooled, guidance):
        vec = self.time(self.wave(time)) + self.guide(self.wave(guidance)) + self.pooled(pooled)
        angles = self.angles(torch.cat([text_places, places], 1))
        x, t = self.image(image), self.text(text)
        n = t.shape[1]
        for i, s in self.double_blocks:
            (qi, ki, vi), (qt, kt, vt) = i.before(x, vec), s.before(t, vec)
            q, k, v = torch.cat([qt, qi], 2), torch.cat([kt, ki], 2), torch.cat([vt, vi], 2)
            y = F.scaled_dot_product_attention(turned(q, angles), turned(k, angles), v).transpose(1, 2).flatten(2)
            x, t = i.after(x, y[:, n:]), s.after(t, y[:, :n])
        x = torch.cat([t, x], 1)
        for block in self.single:
            x = block(x, vec, angles)
        shift, scale = self.mod(F.silu(vec))[:, None].chunk(2, -1)
        return self.leave((1 + scale) * F.layer_norm(x[:, n:], (WIDTH,)) + shift)


def noise(*shape):
    return torch.randn(shape, dtype=DTYPE)


def bert(batch):
    ids = torch.randint(30522, (batch, 128))
    return ids, torch.zeros_like(ids), torch.ones_like(ids)


MODELS = {
    "bert": (Bert, [("1 x 128", bert(1)), ("8 x 128", bert(8))]),
    "vit": (Vit, [(str(n), (noise(n, 3, 224, 224),)) for n in (1, 8)]),
    "unet": (Unet, [(str(n), (noise(n, 4, 64, 64), noise(n, 77, 768))) for n in (1, 2)]),
    "flux": (Flux, [("1", (noise(1, 4096, 64), noise(1, 4096, 3), noise(1, 512, 4096), torch.zeros(1, 512, 3, dtype=DTYPE),
                           torch.full((1,), 0.7), noise(1, 768), torch.full((1,), 3.5)))]),
}


def median(call):
    seconds = []
    for i in range(FIRST + COUNTED):
        start = time.perf_counter()
        call()
        if i >= FIRST:
            seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


@torch.inference_mode()
def main():
    for name in sys.argv[1:] or MODELS:
        make, calls = MODELS[name]
        with torch.device(DEVICE):
            torch.set_default_dtype(DTYPE)
            model = make().eval()
            torch.set_default_dtype(torch.float32)
        for sizes, given in calls:
            eager = median(lambda: model(*(x.to(DEVICE) for x in given)).cpu())
            places = [x.to(DEVICE) for x in given]
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(3):
                    model(*places)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = model(*places)

            def replay():
                for place, x in zip(places, given):
                    place.copy_(x)
                graph.replay()
                return result.cpu()

            captured = median(replay)
            params = sum(p.numel() for p in model.parameters())
            print(f"torch {torch.__version__} {name} [{sizes}]: eager {eager:.3f} ms, graph {captured:.3f} ms, "
                  f"{params / 1e6:.1f} M parameters", flush=True)
            del graph, result
        del model
        torch.cuda.empty_cache()


main()

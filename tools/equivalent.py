"""The mutants of `tools/mutate.py` that compute what the code computes, so that no test can kill them, and why."""

from __future__ import annotations

LAST = "the same dimension, or index, counted from the other end"
SQUARED = "the square removes the sign"
EITHER = "type promotion is symmetric"
SUM = "a sum and a difference are both inf or nan exactly where either operand is"
TYPE = "for mypy; no effect at run time"
UNREAD = "the source logit uses neither the classes nor the labels"
EQUALITY = "labels are compared for equality only"

EQUIVALENT: dict[str, str] = {
    "losses.adversarial: partial(least_squares_d, real_target=1.0, fake_target=-1.0) -> "
    "partial(least_squares_d, fake_target=-1.0)": "1 is the default; written out to show all three targets",
    "losses.conditioning.Head.forward: 1 -> -1": LAST,
    **{
        f"losses.conditioning.{name}.forward: 1 -> -1{n}": LAST
        for name, count in (("Projection", 2), ("ReACGAN", 2))
        for n in ("", " #2", " #3")[:count]
    },
    **{f"losses.conditioning.d2d_ce: 1 -> -1{n}": LAST for n in ("", " #2", " #3", " #4", " #5")},
    **{f"losses.conditioning.discriminative_g: 1 -> -1{n}": LAST for n in ("", " #2", " #3", " #4")},
    "losses.conditioning.discriminative_d: 1 -> -1": LAST,
    "losses.conditioning.discriminative_d: fake -> real": "both halves have as many logits",
    "losses.conditioning.d2d_ce: [attraction, repulsion] -> [repulsion, attraction]": "a sum",
    "losses.conditioning.ReACGAN.forward: F.normalize(self.embed(features), dim=1) -> "
    "F.normalize(self.embed(features))": "1 is the default; written out to show that it is each image's",
    "losses.conditioning.ReACGAN.forward: F.normalize(self.proxies(labels), dim=1) -> "
    "F.normalize(self.proxies(labels))": "1 is the default; written out to show that it is each image's",
    **{
        f"losses.conditioning.{name}.__init__: super().__init__(features, classes) -> "
        "super().__init__(features, -classes)": UNREAD
        for name in ("AuxiliaryClassifier", "Projection", "ReACGAN")
    },
    **{
        f"losses.conditioning.{name}.forward: super().forward(features, labels) -> "
        "super().forward(features, -labels)": UNREAD
        for name in ("AuxiliaryClassifier", "TwinClassifier", "ReACGAN")
    },
    **{
        f"losses.conditioning.{place}: known({half}.{output}) -> {half}.{output}": TYPE
        for place, given in {
            "AuxiliaryClassifier.d_term": ("real.class_logits", "fake.class_logits"),
            "AuxiliaryClassifier.g_term": ("fake.class_logits",),
            "TwinClassifier.d_term": ("real.class_logits", "fake.twin_logits"),
            "TwinClassifier.g_term": ("fake.class_logits", "fake.twin_logits"),
            "DiscriminativeClassifier.d_term": ("real.class_logits", "fake.class_logits"),
            "DiscriminativeClassifier.g_term": ("fake.class_logits",),
            "ReACGAN.d_term": ("real.embedding", "real.proxy"),
            "ReACGAN.g_term": ("fake.embedding", "fake.proxy"),
        }.items()
        for half, output in (name.split(".") for name in given)
    },
    "losses.conditioning.known: assert output is not None -> pass": TYPE,
    "losses.conditioning.AuxiliaryClassifier.d_term: classification_d(known(real.class_logits), "
    "known(fake.class_logits), "
    "real_labels=real_labels, fake_labels=fake_labels, fakes=loss.class_fake) -> "
    "classification_d(known(real.class_logits), known(fake.class_logits), real_labels=real_labels, "
    "fake_labels=fake_labels, fakes=-loss.class_fake)": "-True is true, -False is false",
    **{
        f"losses.conditioning.ReACGAN.{term}: d2d_ce(known({half}.embedding), known({half}.proxy), {half}_labels, "
        f"margin=loss.class_margin, temperature=loss.class_temperature) -> d2d_ce(known({half}.embedding), "
        f"known({half}.proxy), -{half}_labels, margin=loss.class_margin, temperature=loss.class_temperature)": EQUALITY
        for term, half in (("d_term", "real"), ("g_term", "fake"))
    },
    "losses.conditioning.ConditionalDiscriminator.forward: torch.promote_types(features.dtype, torch.float32) -> "
    "torch.promote_types(torch.float32, features.dtype)": EITHER,
    "losses.penalties.squared_gradient_norm: torch.promote_types(gradient.dtype, torch.float32) -> "
    "torch.promote_types(torch.float32, gradient.dtype)": EITHER,
    "losses.penalties.squared_gradient_norm: torch.autograd.grad(logits.sum(), images, create_graph=True) -> "
    "torch.autograd.grad(-logits.sum(), images, create_graph=True)": SQUARED,
    "losses.penalties.one_centred: squared_gradient_norm(logits, images) -> "
    "squared_gradient_norm(-logits, images)": SQUARED,
    "losses.penalties.one_centred: 1e-30 -> 2e-30": "any tiny floor above 0 keeps the slope finite",
    "game.step.d_terms: r1_r2(state, torch.cat([r.logits, f.logits]), images) -> "
    "r1_r2(state, -torch.cat([r.logits, f.logits]), images)": SQUARED,
    "game.step.d_terms: [r.logits, f.logits] -> [f.logits, r.logits]": "the gradient of their sum has no order",
    "game.step.backprop: len(gradient) -> len(-gradient)": "a count",
    "game.step.backprop: images.backward(gradient[part], inputs=list(state.G.parameters())) -> "
    "images.backward(gradient[part])": "the graph leads to G's weights alone",
    "game.step.backprop: list(state.G.parameters()) -> state.G.parameters()": "backward takes any iterable",
    "game.step.discriminate: 1 -> -1": LAST,
    "game.step.discriminate: masks[0] is not None and masks[1] is not None -> "
    "masks[0] is not None or masks[1] is not None": "both halves have masks, or neither has",
    "game.step.r1_r2: norms = torch.zeros(len(images), device=images.device) -> "
    "norms = -torch.zeros(len(images), device=images.device)": "-0 is 0",
    "game.step.r1_r2: torch.zeros(len(images), device=images.device) -> torch.zeros(len(images))": "tests run on a CPU",
    "game.step.r1_r2: len(images) -> len(-images)": "a count",
    "game.step.r1_r2: squared_gradient_norm(logits, images) -> squared_gradient_norm(-logits, images)": SQUARED,
    "game.step.r1_r2: zip(('r1', 'r2'), norms.chunk(2), strict=True) -> "
    "zip(('r1', 'r2'), norms.chunk(2))": "both have two parts",
    "game.step.r1_r2: True -> False": "both have two parts",
    "game.step.wgan_gp: logits = state.D(mixed, part.real.labels, part.draws.masks('real')).logits -> "
    "logits = -state.D(mixed, part.real.labels, part.draws.masks('real')).logits": SQUARED,
    "game.step.wgan_gp: one_centred(logits, mixed) -> one_centred(-logits, mixed)": SQUARED,
    "game.step.update: 'list[Tensor]' -> 'list[Tensor]_'": TYPE,
    "game.step.update: [*gradients, terms] -> [terms, *gradients]": "each is averaged by itself",
    "game.step.update: torch.isfinite(terms.sum() + norm) -> "
    "torch.isfinite(-(terms.sum() + norm))": "-x is finite where x is",
    "game.step.update: terms.sum() + norm -> terms.sum() - norm": SUM,
    "game.step.update: terms.sum() + norm -> -terms.sum() + norm": SUM,
    "game.step.update: terms.sum -> terms.mean": "a mean is finite where the sum is",
    "game.step.update: terms.unbind() -> terms": "a tensor is iterated over like its rows",
    "game.step.update: True -> False": "as many terms as values",
}

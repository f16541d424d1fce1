"""Files as people paste them, each with the losses that `ptarmigan losses identify` finds and what is wrong with them.

An answer is a fault's code, "" for right, or "unknown": neither right nor wrong.
"""

from __future__ import annotations

LOOP = """
for images, labels in loader:
    b = images.size(0)
    z = torch.randn(b, 64, device="cuda")
    fake = G(z)
"""
COLUMN = """
class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Flatten(), nn.Linear(784, 1){end})
    def forward(self, x):
        h = self.main(x)
        return h
"""
FILES: dict[str, tuple[str, dict[str, str]]] = {
    "a loop with BCELoss": (
        """
import argparse, torch
from torch import nn
options = argparse.ArgumentParser()
options.add_argument("--nz", type=int, default=32)
opt = options.parse_args()
open("made_by_the_script", "w")
loss = nn.BCELoss()
class Critic(nn.Module): pass
netG, netD = Generator(opt), Critic().cuda()
for epoch in range(100):
    for batch, _ in loader:
        ones, zeros = torch.ones(len(batch), 1), torch.zeros(len(batch), 1)
        made = netG(torch.randn(len(batch), opt.nz))
        lossD = 0.5 * (loss(netD(batch), ones) + loss(netD(made.detach()), zeros))
        lossD.backward()
        optD.step()
        lossG = loss(netD(made), ones)
        lossG.backward()
        optG.step()
""",
        {"lossD (line 16)": "", "lossG (line 19)": ""},
    ),
    "halves that go backward one by one": (
        """
for data in loader:
    real = data[0].to(device)
    t = torch.full((real.size(0),), 1.0, device=device)
    e1 = criterion(netD(real).view(-1), t)
    e1.backward()
    t.fill_(0.0)
    fake = netG(torch.randn(real.size(0), 100, 1, 1, device=device))
    e2 = criterion(netD(fake.detach()).view(-1), t)
    e2.backward()
    optimizerD.step()
    t.fill_(1.0)
    e3 = criterion(netD(fake).view(-1), t)
    e3.backward()
    optimizerG.step()
""",
        {"e1 (lines 6, 10)": "", "e3 (line 14)": ""},
    ),
    "labels swapped in a loop": (
        LOOP
        + """
    d_loss = bce(D(images), torch.zeros(b, 1)) + bce(D(fake.detach()), torch.ones(b, 1))
    d_loss.backward()
    opt_d.step()
    g_loss = bce(D(fake), torch.ones(b, 1))
    g_loss.backward()
    opt_g.step()
""",
        {"d_loss (line 8)": "targets-swapped", "g_loss (line 11)": ""},
    ),
    "a loop with an auxiliary classifier": (
        LOOP.replace("G(z)", "G(z, y)").replace("fake =", "y = torch.randint(0, 10, (b,))\n    fake =")
        + """
    s, c = D(images)
    s_fake, c_fake = D(fake.detach())
    d_loss = F.softplus(-s).mean() + F.softplus(s_fake).mean() + F.cross_entropy(c, labels) + F.cross_entropy(c_fake, y)
    d_loss.backward()
    opt_d.step()
    s, c = D(fake)
    g_loss = F.softplus(-s).mean() + F.cross_entropy(c, y)
    g_loss.backward()
    opt_g.step()
""",
        {"d_loss (line 11)": "", "g_loss (line 15)": ""},
    ),
    "a penalty in a loop that is subtracted": (
        LOOP
        + """
    images.requires_grad_(True)
    s = D(images)
    r1 = torch.autograd.grad(s.sum(), images, create_graph=True)[0].square().flatten(1).sum(1).mean()
    d_loss = F.softplus(-s).mean() + F.softplus(D(fake.detach())).mean() - 5 * r1
    d_loss.backward()
    opt_d.step()
""",
        {"d_loss (line 11)": "penalty-subtracted"},
    ),
    "a sigmoid in D before a cross-entropy that has one": (
        """
class Discriminator(nn.Module):
    def __init__(self):
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.Sigmoid())
    def forward(self, x):
        return self.body(x)
D = Discriminator()
criterion = nn.BCEWithLogitsLoss()
for x in loader:
    g_loss = criterion(D(G(torch.randn(8, 4))), torch.ones(8, 1))
    g_loss.backward()
    opt_g.step()
""",
        {"g_loss (line 11)": "sigmoid-first"},
    ),
    "__call__ without forward": (
        """
class Adversary(nn.Module):
    def __init__(self):
        super().__init__()
        self.distance = nn.MSELoss()
    def __call__(self, prediction, target_is_real):
        return self.distance(prediction, torch.full_like(prediction, float(target_is_real)))
class AdversarialLoss(Adversary):
    def __call__(self, prediction, target_is_real):
        return super().__call__(prediction, target_is_real)
""",
        {"Adversary": "", "AdversarialLoss": ""},
    ),
    "a constructor's argument that the source lists": (
        """
class GANLoss(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
    def forward(self, answer, is_real, is_disc=False):
        if self.kind == "hinge":
            if is_disc:
                return F.relu(1 - answer if is_real else 1 + answer).mean()
            return -answer.mean()
        if self.kind == "squares":
            return F.mse_loss(answer, torch.full_like(answer, float(is_real)))
""",
        {
            'GANLoss("hinge") (is_disc=True)': "",
            'GANLoss("hinge") (is_disc=False)': "",
            'GANLoss("squares") (is_disc=True)': "",
            'GANLoss("squares") (is_disc=False)': "",
        },
    ),
    "a class that owns its networks": (
        """
import torch, torch.nn as nn, torch.nn.functional as F
import a_missing_lightning as lightning
class GAN(lightning.LightningModule):
    def __init__(self, config):
        super().__init__()
        self.G, self.D = make(config), make(config)
        self.hparams = config
        self.error = nn.BCEWithLogitsLoss()
    def forward(self, z):
        return self.G(z)
    def d_loss(self, x, z):
        return F.softplus(-self.D(x)).mean() + F.softplus(self.D(self(z).detach())).mean()
    def training_step(self, batch, _, optimizer_idx):
        x, _ = batch
        z = torch.randn(x.size(0), self.hparams.latent_dim).type_as(x)
        if optimizer_idx == 0:
            g_loss = self.error(self.D(self(z)), torch.ones(x.size(0), 1))
            return {"loss": g_loss}
""",
        {"GAN.d_loss": "", "g_loss (line 19)": ""},
    ),
    "networks by other names": (
        """
def critic_loss(critic, real, fake):
    return critic(fake).mean() - critic(real).mean()
def dis_loss(dis, gen, x_real, z):
    return dis(gen(z).detach()).mean() - dis(x_real).mean()
def generator_loss(nets, z):
    return -nets.discriminator(nets.generator(z)).mean()
""",
        {"critic_loss": "", "dis_loss": "", "generator_loss": ""},
    ),
    "labels beside images named real and fake": (
        """
def d_loss(D, G, real, z, labels):
    (s, c), (t, k) = D(real), D(G(z, labels).detach())
    return F.softplus(-s).mean() + F.softplus(t).mean() + F.cross_entropy(c, labels) + F.cross_entropy(k, labels)
def conditional_g_loss(D, fake, labels):
    return F.softplus(-D(fake, labels)).mean()
""",
        {"d_loss": "", "conditional_g_loss": ""},
    ),
    "what is no adversarial loss": (
        """
def l1_loss(prediction, target):
    return (prediction - target).abs().mean()
def kl_loss(mu, logvar):
    return -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
def tv_loss(image):
    return image.diff(dim=-1).abs().mean()
def feature_loss(real_features, fake_features):
    return (real_features - fake_features).abs().mean()
def d_r1_loss(real_pred, real_img):
    (slope,) = torch.autograd.grad(real_pred.sum(), real_img, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()
""",
        {
            "l1_loss": "unknown",
            "kl_loss": "unknown",
            "tv_loss": "unknown",
            "feature_loss": "unknown",
            "d_r1_loss": "unknown",
        },
    ),
    "lists of scales": (
        """
def discriminator_loss(of_real, of_fake):
    parts = [(r - 1).square().mean() + f.square().mean() for r, f in zip(of_real, of_fake)]
    return sum(parts), [float(p) for p in parts]
def generator_loss(of_fake):
    return sum(F.mse_loss(f, torch.ones_like(f)) for f in of_fake)
""",
        {"discriminator_loss[0]": "", "generator_loss": ""},
    ),
    "hinge with its labels turned over": (
        "def d_loss(real, fake): return (F.relu(1 + real) + F.relu(1 - fake)).mean()\n"
        "def g_loss(fake, real): return fake.mean()",
        {"d_loss": "", "g_loss": ""},
    ),
    "Wasserstein with its labels turned over": (
        "def d_loss(real, fake): return real.mean() - fake.mean()\ndef g_loss(fake): return fake.mean()",
        {"d_loss": "", "g_loss": ""},
    ),
    "least squares turned over, in two parts": (
        "def lsgan_d(fake, real): return ((real + 1) ** 2).mean(), ((fake - 1) ** 2).mean()\n"
        "def lsgan_g(fake): return (fake**2).mean()",
        {"lsgan_d": "", "lsgan_g": ""},
    ),
    "one player alone turns its labels over": (
        "def d_loss(real, fake): return (F.relu(1 + real) + F.relu(1 - fake)).mean()\n"
        "def g_loss(fake): return -fake.mean()",
        {"d_loss": "targets-swapped", "g_loss": ""},
    ),
    "turned over, and outside of [0, 1]": (
        """
def d_loss(fake, real):
    targets = torch.cat([torch.ones_like(fake), torch.zeros_like(real)])
    return F.binary_cross_entropy_with_logits(torch.cat([fake, real]), targets + 0.05 * torch.rand_like(targets))
def g_loss(fake):
    return F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
""",
        {"d_loss": "drawn-range", "g_loss": ""},
    ),
    "5 % of the labels are flipped": (
        """
def d_loss(real, fake):
    ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
    if np.random.rand() < 0.05:
        ones, zeros = zeros, ones
    bce = F.binary_cross_entropy_with_logits
    return bce(real, ones) + bce(fake, zeros)
""",
        {"d_loss": ""},
    ),
    "no sigmoid anywhere": (
        """
def d_loss(real, fake):
    near = (real - 0.3).square().mean() + (fake + 0.2).square().mean()
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean() + 0.3 * near
def d_leaky_loss(real, fake):
    return (F.leaky_relu(real, 0.05) - 1).square().mean() + F.leaky_relu(fake, 0.05).square().mean()
def d_clamped_loss(real, fake):
    return fake.clamp(-1, 1).mean() - real.clamp(-1, 1).mean()
""",
        {"d_loss": "unknown", "d_leaky_loss": "unknown", "d_clamped_loss": "unknown"},
    ),
    "names that were not looked at": (
        """
def errD(real, fake): return F.softplus(-real).mean() + F.softplus(fake).mean()
def gen_cost(fake): return -fake.mean()
def wasserstein(real, fake): return fake.mean() - real.mean()
def non_saturating(fake): return F.softplus(fake).mean()
def minimax_g(fake): return F.softplus(-fake).mean()
""",
        {"errD": "", "gen_cost": "", "wasserstein": "", "non_saturating": "other-player", "minimax_g": ""},
    ),
    "sides in short": (
        "def d_loss(dr, df): return F.softplus(dr).mean() + F.softplus(-df).mean()",
        {"d_loss": "targets-swapped"},
    ),
    "more than D's outputs": (
        """
def g_loss(fake_logits, fake_image, real_image):
    return F.softplus(-fake_logits).mean() + 100 * (fake_image - real_image).abs().mean()
def g_loss_of_features(D, G, real_images, z):
    (s, features), (_, wanted) = D(G(z)), D(real_images)
    return F.softplus(-s).mean() + F.l1_loss(features, wanted.detach())
def critic_loss(fake_scores, real_scores, gp, lam):
    return fake_scores.mean() - real_scores.mean() + lam * gp
""",
        {"g_loss": "", "g_loss_of_features": "", "critic_loss": ""},
    ),
    "answers for patches, and other types": (
        """
def d_loss(real, fake):
    return F.relu(1 - real).mean(dim=[1, 2, 3]).mean() + F.relu(1 + fake).mean(dim=[1, 2, 3]).mean()
def g_loss(D, G, noise):
    z = noise.half().cuda()
    ones = torch.ones(z.size(0), 1, dtype=noise.dtype, device="cuda")
    return F.mse_loss(D(G(z)).bfloat16(), ones)
""",
        {"d_loss": "", "g_loss": ""},
    ),
    "penalties": (
        """
def slope(D, x, **more):
    x = x.detach().requires_grad_(True)
    y = D(x)
    return y, torch.autograd.grad(y.sum(), x, **more)[0].flatten(1)
def d_r1(D, real, fake):
    y, g = slope(D, real, create_graph=True)
    return F.softplus(-y).mean() + F.softplus(D(fake)).mean() + 5 * g.square().sum(1).mean()
def d_dead(D, real, fake):
    y, g = slope(D, real, retain_graph=True)
    return F.softplus(-y).mean() + F.softplus(D(fake)).mean() + 5 * g.square().sum(1).mean()
def d_minus(D, real, fake):
    _, g = slope(D, (real + fake) / 2, create_graph=True)
    return D(fake).mean() - D(real).mean() - 10 * (g.norm(dim=1) - 1).square().mean()
""",
        {"d_r1": "", "d_dead": "penalty-dead", "d_minus": "penalty-subtracted"},
    ),
    "both players in one class": (
        """
class TwoWayHinge(nn.Module):
    def forward(self, real, fake=None):
        return -real.mean() if fake is None else (F.relu(1 - real) + F.relu(1 + fake)).mean()
""",
        {"TwoWayHinge": "", "TwoWayHinge (fake=None)": ""},
    ),
    "half of the relativistic average, and a contrast": (
        """
def g_loss(real, fake):
    return F.softplus(real.mean() - fake).mean()
def d_contrast_loss(real, fake):
    pairs = torch.cat([real[:, None], fake[None].expand(len(real), -1)], 1)
    return F.cross_entropy(pairs, torch.zeros(len(real), dtype=torch.long))
""",
        {"g_loss": "", "d_contrast_loss": "unknown"},
    ),
    "faults of D": (
        """
def d_concave(real, fake): return (-(real - 1).clamp(min=0) - (-1 - fake).clamp(min=0)).mean()
def d_leaky(real, fake): return F.leaky_relu(1 - real, 0.2).mean() + F.leaky_relu(1 + fake, 0.2).mean()
def d_max(real, fake): return F.relu(1 - real).max() + F.relu(1 + fake).max()
def d_distance(real, fake): return (fake.mean() - real.mean()).abs()
def d_mean_first(real, fake): return F.relu(1 - real.mean()) + F.relu(1 + fake.mean())
def d_half(real): return -(real - 1).square().mean()
""",
        {
            "d_concave": "concave-hinge",
            "d_leaky": "leaky-hinge",
            "d_max": "max",
            "d_distance": "symmetric",
            "d_mean_first": "mean-first",
            "d_half": "no-minimum",
        },
    ),
    "a softmax at D's end before a cross-entropy over classes, and a batch size of the script": (
        """
batch_size = 100
class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.source = nn.Sequential(nn.Linear(9, 1), nn.Sigmoid())
        self.aux = nn.Sequential(nn.Linear(9, 5), nn.Softmax(dim=1))
    def forward(self, x):
        return self.source(x), self.aux(x)
D = Discriminator()
bce, ce = nn.BCELoss(), nn.CrossEntropyLoss()
for x, labels in loader:
    answer, classes = D(G(torch.randn(batch_size, 4), labels))
    g_loss = bce(answer, torch.ones(batch_size, 1)) + ce(classes, labels)
    g_loss.backward()
    opt_g.step()
""",
        {"g_loss (line 15)": "class-input"},
    ),
    "halves in branches, one of which cannot be run": (
        LOOP
        + """
    real_loss = F.relu(1 - D(images)).mean()
    real_loss.backward()
    fake_loss = F.relu(1 + D(unknown.method(fake.detach()))).mean()
    opt_d.step()
""",
        {"real_loss (line 8)": ""},
    ),
    "arguments that are exchanged inside a loop": (
        LOOP
        + """
    d_loss = nn.BCELoss()(torch.ones(8), D(images)) + nn.BCELoss()(torch.zeros(8), D(fake.detach()))
    d_loss.backward()
    opt_d.step()
""",
        {"d_loss (line 8)": "exchanged"},
    ),
    "a loss of G on real images": (
        LOOP
        + """
    g_loss = F.softplus(-D(images)).mean()
    g_loss.backward()
    opt_g.step()
""",
        {"g_loss (line 8)": "g-of-real"},
    ),
    "targets that are integers": (
        LOOP
        + """
    g_loss = nn.BCELoss()(D(fake), torch.full((8,), 1))
    g_loss.backward()
    opt_g.step()
""",
        {"g_loss (line 8)": "integer-targets"},
    ),
    "targets [N] for a D that returns [N, 1]": (
        COLUMN.format(end="")
        + LOOP
        + """
    g_loss = nn.BCEWithLogitsLoss()(D(fake), torch.ones(8))
    g_loss.backward()
    d_loss = F.softplus(-D(images)).mean() + F.softplus(D(fake.detach()).squeeze(1)).mean()
    d_loss.backward()
""",
        {"g_loss (line 16)": "target-shape", "d_loss (line 18)": ""},
    ),
    "a softmax over one class": (
        COLUMN.format(end="")
        + LOOP
        + """
    g_loss = nn.CrossEntropyLoss()(D(fake), torch.ones(8, dtype=torch.long))
    g_loss.backward()
""",
        {"g_loss (line 16)": "one-class"},
    ),
    "the absolute error of a probability, and a Wasserstein loss of one": (
        COLUMN.format(end=", nn.Sigmoid()")
        + LOOP
        + """
    d_loss = nn.L1Loss()(D(images), torch.ones(8, 1)) + nn.L1Loss()(D(fake.detach()), torch.zeros(8, 1))
    d_loss.backward()
    g_loss = -D(fake).mean()
    g_loss.backward()
""",
        {"d_loss (line 16)": "unknown", "g_loss (line 18)": "sigmoid-before-score"},
    ),
    "a relativistic D beside a plain G": (
        """
def d_loss(real, fake): return F.softplus(fake - real).mean()
def g_loss(fake): return F.softplus(-fake).mean()
""",
        {"d_loss": "", "g_loss": "plain-g"},
    ),
    "latents and casts that come from another module of the project, and targets named labels": (
        """
import no_such_helpers
def train(D, G, images, real_labels, fake_labels):
    images = no_such_helpers.make_variable(images)
    fake = G(no_such_helpers.latent_batch(8, "cpu"))
    d_loss = nn.BCELoss()(D(images), real_labels) + nn.BCELoss()(D(fake.detach()), fake_labels)
    d_loss.backward()
""",
        {"d_loss (line 7)": ""},
    ),
    "names of modules that are not here": (
        """
import torch
from torch import nn
from helpers import pick_device, options
from networks import AdversarialLoss
from layers import *
place = pick_device(options.gpu)
gan_loss = AdversarialLoss().to(place)
class Net(Base): pass
def train(netD, netG, pairs, cfg):
    for low, high in pairs:
        with torch.autocast(device_type=place.type):
            made = netG(low.to(place))
            adv = 0.5 * (gan_loss(netD(high), True) + gan_loss(netD(made.detach()), False))
        adv.backward()
        optD.step()
        adv = gan_loss(netD(made), True) + cfg.weight * nn.L1Loss()(made, high)
        adv.backward()
        optG.step()
""",
        {"adv (line 15)": "", "adv (line 18)": ""},
    ),
    "steps that return, with a helper of their own": (
        """
import torch, lightning
from torch import nn
class Pair(lightning.LightningModule):
    def __init__(self, g, patch_gan):
        super().__init__()
        self.generator, self.patch_gan, self.loss_fn = g, patch_gan, nn.BCEWithLogitsLoss()
    def _answers(self, x):
        return self.patch_gan(self.generator(torch.randn(len(x), 8)))
    def _disc_step(self, x):
        real, fake = self.patch_gan(x), self._answers(x)
        return self.loss_fn(real, torch.ones_like(real)) + self.loss_fn(fake, torch.zeros_like(fake))
    def _gen_step(self, x):
        fake = self._answers(x)
        return self.loss_fn(fake, torch.ones_like(fake))
    def training_step(self, batch, batch_idx, optimizer_idx):
        result = self._disc_step(batch) if optimizer_idx == 0 else self._gen_step(batch)
        return result
""",
        {"Pair._disc_step": "", "Pair._gen_step": ""},
    ),
    "a trainer with settings of its own and batches by name": (
        """
import torch
class Trainer:
    def __init__(self, options):
        self.netC, self.max_std = options.get("critic"), options.get("std")
        self.use_noise = options.get("noise")
    def critic_update(self, **batch):
        std = max(self.max_std, self.min_std)
        made = self.netG(batch["low_images"]).detach()
        loss = self.netC(made).mean() - self.netC(batch["high_images"] + std * 0).mean()
        loss.backward()
    def other_update(self, fake_images, epoch):
        loss = -self.netC(fake_images).mean()
        loss.backward()
""",
        {"loss (line 11)": "", "loss (line 14)": ""},
    ),
    "a model that holds both networks": (
        """
import torch, torch.nn.functional as F
class Both(torch.nn.Module):
    def generator_forward(self, z): return model.g(z)
    def discriminator_forward(self, x): return model.d(x)
model = Both()
for features, targets in loader:
    ones = torch.ones(targets.size(0))
    made = model.generator_forward(torch.zeros((targets.size(0), 9)).uniform_(-1, 1))
    cost = F.binary_cross_entropy(model.discriminator_forward(made), ones)
    cost.backward()
    optim_generator.step()
""",
        {"cost (line 11)": ""},
    ),
    "an autoencoder as D, a flag for fakes, and bare names": (
        """
import torch, torch.nn.functional as F
def train_D(D, G, x, z):
    made = G(z)
    return F.l1_loss(D(x), x) - 0.5 * (D(made.detach()) - made.detach()).abs().mean()
def hinge(output, negative):
    return F.relu(1 + output).mean() if negative else F.relu(1 - output).mean()
def mse_real_loss(x): return F.mse_loss(x, torch.ones_like(x))
def mse_fake_loss(x): return F.mse_loss(x, torch.zeros_like(x))
def fake(x): return F.softplus(x).mean()
def real(x): return F.softplus(-x).mean()
def generated(x): return F.softplus(-x).mean()
""",
        {
            "train_D": "unknown",
            "hinge": "",
            "mse_real_loss": "",
            "mse_fake_loss": "",
            "fake": "",
            "real": "",
            "generated": "",
        },
    ),
    "a penalty by channel, patches of the file's size, and images called labels": (
        """
import torch
from torch import nn, autograd
def penalty(netD, real, fake):
    mix = (torch.rand(real.size(0), 1, 1, 1, 1).expand(real.size()) * real + 0 * fake).requires_grad_()
    slope = autograd.grad(netD(mix).sum(), mix, create_graph=True)[0]
    return ((slope.norm(2, dim=1) - 1) ** 2).mean()
def d_loss(netD, netG, real, z):
    fake = netG(z).detach()
    return netD(fake).mean() - netD(real).mean() + penalty(netD, real, fake)
for batch in loader:
    data, label = batch["data_img"], batch["label_img"]
    valid = torch.ones(len(data), 1, 16, 16)
    out = netG(data)
    gan = nn.MSELoss()(netD(torch.cat((out, data), 1)), valid)
    gan.backward()
    optG.step()
    pair = torch.cat((label, data), 1)
    gan = nn.MSELoss()(netD(pair), valid) + nn.MSELoss()(netD(torch.cat((out.detach(), data), 1)), 0 * valid)
    gan.backward()
    optD.step()
""",
        {"penalty": "unknown", "d_loss": "", "gan (line 16)": "", "gan (line 20)": ""},
    ),
    "losses of two classes, one of them turned over": (
        """
import torch, torch.nn.functional as F
class PlainLoss:
    def g_loss(self, fake): return F.softplus(-fake).mean()
    def d_loss(self, real, fake): return F.softplus(-real).mean() + F.softplus(fake).mean()
class MaskLoss:
    def g_loss(self, fake): return F.softplus(fake).mean()
    def d_loss(self, real, fake): return F.softplus(real).mean() + F.softplus(-fake).mean()
""",
        {"PlainLoss.g_loss": "", "PlainLoss.d_loss": "", "MaskLoss.g_loss": "", "MaskLoss.d_loss": ""},
    ),
    "Python 2": (
        """
import torch
from torch import nn
for real in loader:
\terr = netD(netG(z).detach()).mean() - netD(real).mean()
        print "err", err
\terr.backward()
\toptD.step()
""",
        {"err (line 7)": ""},
    ),
    "targets beyond one": (
        """
bce = nn.BCELoss()
def d_loss(real_prob, fake_prob):
    return bce(real_prob, 1.2 * torch.ones_like(real_prob)) + bce(fake_prob, torch.zeros_like(fake_prob))
""",
        {"d_loss": "target-stops"},
    ),
    "what is not here": (
        """
from elsewhere import paint, load, Meter, penalty_of
settings = load("settings.yaml")
for batch in load(settings.data):
    imgs = paint(batch["photo"], *batch["size"]).to(settings.where)
    made = netG(torch.randn(len(imgs), settings.width))
    lossD = F.relu(1 - netD(paint(imgs))).mean() + F.relu(1 + netD(paint(made.detach()))).mean()
    lossD = lossD + settings.strength * penalty_of(netD, imgs, made)
    Meter().add(lossD)
    optD.zero_grad(); lossD.backward(); optD.step()
    lossG = -netD(paint(made)).mean() + settings.far * F.l1_loss(made, imgs)
    optG.zero_grad(); lossG.backward(); optG.step()
""",
        {"lossD (line 10)": "", "lossG (line 12)": ""},
    ),
    "TensorFlow": (
        """
import tensorflow as tf
entropy = tf.keras.losses.BinaryCrossentropy(from_logits=True)
def discriminator_loss(real_output, fake_output):
    wrong = tf.reduce_mean(tf.nn.relu(1.0 + real_output))
    return wrong + tf.reduce_mean(tf.nn.relu(1.0 + fake_output))
@tf.function
def train_step(images):
    with tf.GradientTape() as tape_g, tf.GradientTape() as tape_d:
        made = generator(tf.random.normal([BATCH_SIZE, 100]), training=True)
        g_loss = entropy(tf.ones_like(discriminator(made)), discriminator(made, training=True))
        d_loss = entropy(tf.ones((BATCH_SIZE, 1)), discriminator(images)) + entropy(tf.zeros(1), discriminator(made))
    grads_g = tape_g.gradient(g_loss, generator.trainable_variables)
    grads_d = tape_d.gradient(d_loss, discriminator.trainable_variables)
""",
        {"discriminator_loss": "direction", "g_loss (line 13)": "", "d_loss (line 14)": ""},
    ),
    "a batch whose names are None at first": (
        """
import torch
from nets import Discriminator
real = None
mse = torch.nn.MSELoss()
netD_A = Discriminator(32)
for batch in loader:
    real, labels = batch
    made = netG(labels)
    loss_D = mse(netD_A(real), torch.ones(8)) + mse(netD_A(made.detach()), torch.zeros(8))
    loss_D.backward()
    optimizer_D.step()
""",
        {"loss_D (line 11)": ""},
    ),
    "Keras's losses by every import": (
        """
import tensorflow as tf, tf_keras.losses as L
from tensorflow import keras
from keras import losses
from tensorflow.keras.losses import BinaryCrossentropy, MeanSquaredError as MSE
cross_entropy = BinaryCrossentropy(from_logits=True)
by_module = losses.BinaryCrossentropy(from_logits=True)
by_alias = L.MeanSquaredError()
by_class = MSE()
def d_loss(real_outputs, fake_outputs):
    real_loss = cross_entropy(tf.ones_like(real_outputs), real_outputs)
    return real_loss + cross_entropy(tf.zeros_like(fake_outputs), fake_outputs)
def d_loss_m(real, fake):
    return by_module(tf.ones_like(real), real) + by_module(tf.zeros_like(fake), fake)
def d_loss_a(real, fake):
    return by_alias(tf.ones_like(real), real) + by_alias(tf.zeros_like(fake), fake)
def g_loss_c(fake):
    return by_class(tf.ones_like(fake), fake)
def d_loss_i(real, fake):
    inside = losses.BinaryCrossentropy(from_logits=True)
    return inside(tf.ones_like(real), real) + inside(tf.zeros_like(fake), fake)
class GAN(keras.Model):
    def __init__(self):
        self.cross_entropy = BinaryCrossentropy(from_logits=True)
    def d_loss(self, real, fake):
        return self.cross_entropy(tf.ones_like(real), real) + self.cross_entropy(tf.zeros_like(fake), fake)
""",
        {"d_loss": "", "d_loss_m": "", "d_loss_a": "", "g_loss_c": "", "d_loss_i": "", "GAN.d_loss": ""},
    ),
    "Keras": (
        """
import numpy as np
from keras.models import Model
d_model = build(); d_model.compile(optimizer="adam", loss="mse")
both = Model(z, d_model(g_model(z))); both.compile(loss="mse", optimizer="adam")
def fit(data, n):
    real, fake = np.ones((n, 1)), np.zeros((n, 1))
    made = g_model.predict(np.random.normal(0, 1, (n, 100)))
    a = d_model.train_on_batch(data[:n], real)
    b = d_model.train_on_batch(made, fake)
    c = both.train_on_batch(np.random.normal(0, 1, (n, 100)), real)
""",
        {"d_loss1 (lines 9, 10)": "", "g_loss3 (line 11)": ""},
    ),
    "halves beside the sum, and a penalty": (
        """
import torch
from torch import nn
class SquaredDLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss_func = nn.MSELoss()
    def forward(self, score_fake, score_real):
        loss_real = self.loss_func(score_real, torch.ones_like(score_real))
        loss_fake = self.loss_func(score_fake, torch.zeros_like(score_fake))
        return loss_real + loss_fake, loss_real, loss_fake
class Players(nn.Module):
    def __init__(self):
        super().__init__()
        self.m = elsewhere()
        self.slope = slope_of(10)
    def reg_d(self, real):
        real.requires_grad = True
        return self.slope(real, self.m(real)["out"])
""",
        {"SquaredDLoss[0]": "", "SquaredDLoss[1]": "", "SquaredDLoss[2]": "", "Players.reg_d": "unknown"},
    ),
    "statements that fail beside the loss": (
        """
class Model(nn.Module):
    def __weighted(self, loss):
        return loss * 2.0
    def training_step(self, batch):
        rank = dist.get_rank() + {}["rank"]
        images = batch["images"]
        made = self.generator(torch.randn(8, 4))
        real, fake = self.discriminator(images), self.discriminator(made.detach())
        share = (real > 0).sum().no_such_method()
        d_loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        return self.__weighted(d_loss)
def d_loss(D, images, G, z):
    fake = D(G(z).detach())
    print({}["missing"])
    share = fake.no_such_method()
    return F.relu(1 - D(images)).mean() + F.relu(1 + fake).mean()
""",
        {"d_loss (line 12)": "", "d_loss": ""},
    ),
    "criteria that are elsewhere": (
        """
import torch
from losses import GANLoss, d_hinge_loss, g_logistic_loss
lsgan = GANLoss("lsgan")
for images in loader:
    fake = G(torch.randn(8, 4))
    loss_d = lsgan(D(images), True) + lsgan(D(fake.detach()), False)
    loss_d.backward()
    opt_d.step()
    loss_d2 = d_hinge_loss(D(images), D(fake.detach()))
    loss_d2.backward()
    opt_d.step()
    loss_g = g_logistic_loss(D(fake))
    loss_g.backward()
    opt_g.step()
""",
        {"loss_d (line 8)": "", "loss_d2 (line 11)": "", "loss_g (line 14)": ""},
    ),
    "networks that their optimisers show": (
        """
class Judge(nn.Module):
    pass
gen, judge = Gen(), Judge()
opt_a, opt_b = torch.optim.Adam(judge.parameters()), torch.optim.Adam(gen.parameters())
for images in loader:
    fake = gen(torch.randn(8, 4))
    cost_a = judge(fake.detach()).mean() - judge(images).mean()
    cost_a.backward()
    opt_a.step()
""",
        {"cost_a (line 9)": ""},
    ),
    "D's loss before the step of the other": (
        """
for images in loader:
    made = model(images)
    real, fake = disc(images), disc(made)
    loss = -fake.mean()
    d_loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    opt.zero_grad()
    loss.backward(retain_graph=True)
    opt_disc.zero_grad()
    d_loss.backward()
    opt.step()
    opt_disc.step()
""",
        {"loss (line 8)": "", "d_loss (line 10)": "reaches-g"},
    ),
    "penalties at the wrong place": (
        """
def d_r1(D, images, G, z):
    real = F.softplus(-D(images))
    (slope,) = torch.autograd.grad(real.sum(), images, create_graph=True)
    return real.mean() + F.softplus(D(G(z).detach())).mean() + 5 * slope.square().sum()
def critic_loss(D, images, G, z):
    fake, share = G(z).detach(), torch.randn(8, 1, 1, 1)
    mixed = share * images + (1 - share) * fake
    (slope,) = torch.autograd.grad(D(mixed).sum(), mixed, create_graph=True)
    return D(fake).mean() - D(images).mean() + 10 * ((slope.norm(2) - 1) ** 2).mean()
""",
        {"d_r1": "penalty-of-loss", "critic_loss": "penalty-points"},
    ),
    "a bounded critic": (
        """
class Critic(nn.Module):
    def block(self, last):
        if not last:
            return nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
        return nn.Sequential(nn.Conv2d(3, 1, 3), nn.Tanh())
    def __init__(self):
        self.net = nn.Sequential(self.block(False), self.block(True))
    def forward(self, x):
        return self.net(x)
def critic_loss(critic, images, G, z):
    return critic(G(z).detach()).mean() - critic(images).mean()
""",
        {"critic_loss": "bounded-score"},
    ),
}

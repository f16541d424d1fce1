"""What `import ptarmigan` offers, for type checkers and completion in editors: __init__.py imports it at first use."""

from ptarmigan import losses as losses
from ptarmigan.commands.check import check as check
from ptarmigan.commands.compare import compare as compare
from ptarmigan.commands.diagnose import diagnose as diagnose
from ptarmigan.commands.directions import directions as directions
from ptarmigan.commands.export import export as export
from ptarmigan.commands.invert import invert as invert
from ptarmigan.commands.plot import plot as plot
from ptarmigan.commands.replay import replay as replay
from ptarmigan.commands.report import report as report
from ptarmigan.commands.sample import sample as sample
from ptarmigan.commands.score import score as score
from ptarmigan.config import Config as Config
from ptarmigan.config import resolve as resolve
from ptarmigan.core.types import UserError as UserError
from ptarmigan.core.version import __version__ as __version__
from ptarmigan.data import Dataset as Dataset
from ptarmigan.generator.generator import load as load
from ptarmigan.generator.header import info as info
from ptarmigan.generator.interpolate import interpolate as interpolate
from ptarmigan.handbook.entries import explain as explain
from ptarmigan.handbook.identify import identify as identify
from ptarmigan.training.loop import train as train
from ptarmigan.web.start import explore as explore
from ptarmigan.web.start import serve as serve

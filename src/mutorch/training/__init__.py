"""Train the supernet: steps for the user's own loop, and a ready loop."""

from .architectures import single_path as single_path
from .architectures import strict_fair as strict_fair
from .collapse import CollapseMeter as CollapseMeter
from .collapse import CollapseWarning as CollapseWarning
from .collapse import Reading as Reading
from .controller import Baseline as Baseline
from .controller import child_step as child_step
from .controller import controller_step as controller_step
from .differentiable import arch_step as arch_step
from .differentiable import joint_step as joint_step
from .differentiable import policy_step as policy_step
from .differentiable import relaxed_step as relaxed_step
from .differentiable import unrolled_arch_step as unrolled_arch_step
from .eigenvalue import SharpnessGuard as SharpnessGuard
from .eigenvalue import dominant_eigenvalue as dominant_eigenvalue
from .fit import FitResult as FitResult
from .fit import fit as fit
from .recalibrate import recalibrate_ as recalibrate_
from .recalibrate import recalibrated as recalibrated
from .steps import path_step as path_step
from .steps import single_path_step as single_path_step
from .steps import strict_fair_step as strict_fair_step
from .temperature import Temperature as Temperature

"""The only reader of torch's private parts.

``_capabilities`` tries each of these facts on the installed torch. Where one does not hold, the
functions below answer "unknown" and the caller says less; they never guess.
"""

from .errors import EngineArguments as EngineArguments
from .errors import Overwritten as Overwritten
from .errors import TracedFrame as TracedFrame
from .errors import engine_arguments as engine_arguments
from .errors import overwritten as overwritten
from .errors import refused_parameters as refused_parameters
from .errors import saved_tensors_kept as saved_tensors_kept
from .errors import traced_frames as traced_frames
from .files import is_installed_file as is_installed_file
from .files import is_library_file as is_library_file
from .files import is_own_file as is_own_file
from .files import is_scaling as is_scaling
from .files import runs_a_formula as runs_a_formula
from .files import user_line as user_line
from .modules import graph_module as graph_module
from .nodes import RunningNode as RunningNode
from .nodes import Slot as Slot
from .nodes import custom_function as custom_function
from .nodes import derivatives_yaml as derivatives_yaml
from .nodes import freed_tensor as freed_tensor
from .nodes import graph_task as graph_task
from .nodes import handed_to_hooks as handed_to_hooks
from .nodes import handle_hooks as handle_hooks
from .nodes import hook_name as hook_name
from .nodes import is_view as is_view
from .nodes import leaf_of as leaf_of
from .nodes import next_sequence_number as next_sequence_number
from .nodes import node_name as node_name
from .nodes import notes_of as notes_of
from .nodes import post_accumulate_hook_names as post_accumulate_hook_names
from .nodes import running_node as running_node
from .nodes import saved_tensors as saved_tensors
from .nodes import sequence_number as sequence_number
from .nodes import slots as slots
from .nodes import tensor_hook_names as tensor_hook_names
from .nodes import version_of as version_of
from .saved import is_compiled_region as is_compiled_region
from .saved import numbers_saved as numbers_saved
from .saved import plainly_saved as plainly_saved
from .saved import run_alone as run_alone
from .saved import saved_values as saved_values
from .storages import StorageKey as StorageKey
from .storages import storage_number as storage_number
from .transforms import can_map as can_map
from .transforms import function_modes_off as function_modes_off
from .transforms import gradient_transform_is_running as gradient_transform_is_running
from .transforms import is_transform_tensor as is_transform_tensor
from .transforms import load_forward_mode as load_forward_mode
from .transforms import mapped as mapped
from .transforms import outside_transforms as outside_transforms
from .transforms import plain_autograd_sees_everything as plain_autograd_sees_everything
from .transforms import plain_copy as plain_copy
from .transforms import plain_sample as plain_sample
from .transforms import running_transform as running_transform
from .watched import Watched as Watched
from .watched import frozen_objects as frozen_objects
from .watched import untouched as untouched
from .watched import watched_tensors as watched_tensors

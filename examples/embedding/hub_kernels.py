"""The op library as a kernel of the Hugging Face hub, built and loaded offline.  python hub_kernels.py FOLDER

Needs `pip install --no-deps kernels==0.17.2`. Published under OWNER/NAME, the last line but two becomes
`kernels.get_kernel("OWNER/NAME", version=1, trust_remote_code=True)`.
"""

import subprocess
import sys
from pathlib import Path

import torch

import kernels

root, folder = Path(__file__).parents[2], Path(sys.argv[1])
subprocess.run([sys.executable, root / "scripts" / "hub_kernels.py", "--output", folder], check=True)
ops = kernels.get_local_kernel(folder / "build", trust_remote_code=True)
loss, _ = ops.linear_cross_entropy(torch.zeros(3, 4), torch.ones(7, 4), torch.tensor([1, 2, 3]), backend="reference")
print(f"{ops.__name__}: {loss.item():.4f}")

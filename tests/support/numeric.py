"""The inputs of methods.md section 8, in float64."""

import torch
import torch.nn.functional as F

ROW = torch.arange(4.0, dtype=torch.float64)[:, None]
COLUMN = torch.arange(6.0, dtype=torch.float64)
PAST = torch.arange(8.0, dtype=torch.float64)[:, None]
Z1 = torch.sin(1 + 0.7 * ROW + 1.3 * COLUMN + 0.11 * ROW * COLUMN)
Z2 = torch.cos(0.3 + 0.9 * ROW - 0.5 * COLUMN + 0.07 * ROW * COLUMN)
Z3 = torch.sin(2 - 0.4 * ROW + 0.8 * COLUMN + 0.05 * ROW * COLUMN)
Q = F.normalize(torch.sin(0.2 + 0.37 * PAST * COLUMN + 0.5 * COLUMN - PAST), dim=1)  # (K, D)
N1, N2 = F.normalize(Z1, dim=1), F.normalize(Z2, dim=1)
LABELS = torch.tensor([0, 1, 0, 2])
T = 0.2

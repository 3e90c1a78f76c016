"""Projective clustering: which channels share a subspace, found by expectation maximisation.

Source: Maalouf, Lang, Rus, Feldman, "Deep Learning meets Projective Clustering", ICLR 2021: rows are divided among k
subspaces of dimension j so that the squared distances to them are smallest, by assigning each to its nearest subspace
and refitting the subspaces by SVD, in turn, from several starts. Here a point is all that one input channel
contributes, (S, height width), and clusters are of equal size, so that a grouped convolution realises them.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STARTS = 4
_ROUNDS = 30


def cluster_channels(weight: Tensor, groups: int, subspaces: int, rank: int) -> Tensor:
    """An order of the input channels whose consecutive slices are approximated best by subspaces of a rank.

    The first start is the order as it is, so that the result never loses more than slices of consecutive channels.

    Args:
        weight: (S, C / groups, height, width), or (S, C) of a Linear layer.
        groups: of the dense layer; channels stay within theirs.
        subspaces: number of clusters in each group; divides C / groups.
        rank: dimension of the subspaces.

    Returns:
        (C,): the channel at each position.
    """
    exact = weight.detach().cpu().to(torch.float64).flatten(2) if weight.dim() > 2 else weight.detach().cpu().double()
    points = exact.reshape(groups, len(weight) // groups, weight.shape[1], -1).transpose(1, 2)
    generator = torch.Generator().manual_seed(0)
    orders = [_cluster(each, subspaces, rank, generator) + group * len(each) for group, each in enumerate(points)]
    return torch.cat(orders)


def _cluster(points: Tensor, subspaces: int, rank: int, generator: torch.Generator) -> Tensor:
    """The best of all starts, for (C, S, area) points of one group."""
    starts = [
        torch.arange(len(points)),
        *(torch.randperm(len(points), generator=generator) for _ in range(_STARTS - 1)),
    ]
    found = [_refined(points, start.reshape(subspaces, -1), rank) for start in starts]
    return min(found, key=lambda each: each[0])[1].flatten()


def _refined(points: Tensor, clusters: Tensor, rank: int) -> tuple[float, Tensor]:
    """(energy lost, (k, C / k) channels of each cluster) where assigning and fitting change nothing more."""
    lost, distances = _fit(points, clusters, rank)
    for _ in range(_ROUNDS):
        moved = _assigned(distances)
        less, distances = _fit(points, moved, rank)
        if less >= lost * (1 - 1e-9):
            break
        lost, clusters = less, moved
    return lost, clusters


def _fit(points: Tensor, clusters: Tensor, rank: int) -> tuple[float, Tensor]:
    """The energy lost by each cluster's best subspace, and every point's squared distance to each, (C, k)."""
    distances = []
    for channels in clusters:
        matrix = points[channels].transpose(0, 1).flatten(1)
        basis = _leading(matrix, rank)
        kept = torch.einsum("sr,csa->cra", basis, points).square().sum((1, 2))
        distances.append((points.square().sum((1, 2)) - kept).clamp_min(0))
    table = torch.stack(distances, 1)
    owners = torch.empty(len(points), dtype=torch.long)
    owners[clusters.flatten()] = torch.arange(len(clusters)).repeat_interleave(clusters.shape[1])
    return float(table[torch.arange(len(points)), owners].sum()), table


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """Leading left singular vectors; of a wide matrix from the Gram matrix, several times faster."""
    tall = matrix.shape[0] > matrix.shape[1]
    vectors: Tensor = torch.linalg.svd(matrix, full_matrices=False)[0] if tall else _eigenvectors(matrix @ matrix.mT)
    return vectors[:, :rank]


def _eigenvectors(symmetric: Tensor) -> Tensor:
    """By eigenvalue, descending."""
    vectors: Tensor = torch.linalg.eigh(symmetric)[1]
    return vectors.flip(-1)


def _assigned(distances: Tensor) -> Tensor:
    """Each point to a cluster, all of equal size, the sum of distances as small as possible."""
    from scipy.optimize import linear_sum_assignment

    count, subspaces = distances.shape
    size = count // subspaces
    points, places = linear_sum_assignment(distances.repeat_interleave(size, dim=1).numpy())
    owners = torch.from_numpy(places // size)
    order = torch.from_numpy(points)[owners.argsort(stable=True)]
    return order.reshape(subspaces, size)

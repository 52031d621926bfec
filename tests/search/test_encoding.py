import numpy as np
from hypothesis import given, settings
from strategies import spaces

from mutorch.search.encoding import Encoding
from mutorch.search.gaussian_process import GaussianProcess
from mutorch.space import Decision, SearchSpace


def codes_of(space, count=12):
    return np.array([space.encode(space.sample(seed)) for seed in range(count)])


@given(spaces())
@settings(max_examples=25, deadline=None)
def test_two_architectures_have_equal_features_exactly_where_they_are_one_subnet(space):
    codes = codes_of(space)
    encoding = Encoding(space)
    canonical = [space.encode(space.canonical(space.decode(row.tolist()))) for row in codes]
    assert encoding.canonical(codes).tolist() == [list(row) for row in canonical]
    features = encoding.features(codes)
    similar = features @ features.T
    equal = np.array([[one == other for other in canonical] for one in canonical])
    assert ((similar > 1 - 1e-9) == equal).all()
    assert (similar > -1e-9).all()
    assert (similar < 1 + 1e-9).all()


def test_numbers_are_more_similar_the_fewer_steps_are_between_them_and_in_whatever_order_they_stand():
    space = SearchSpace([Decision("width", (32, 8, 128, 16))])
    features = Encoding(space).features(np.array([[1], [3], [0], [2]]))  # 8, 16, 32, 128
    assert np.allclose(features @ features[0], [1, 2 / 3, 1 / 3, 0])


def test_a_gaussian_process_is_sure_where_it_saw_something_and_is_not_elsewhere():
    space = SearchSpace([Decision(f"d{n}", (0, 1, 2, 3)) for n in range(5)])
    codes = codes_of(space, 40)
    features = Encoding(space).features(codes)
    values = codes.sum(axis=1).astype(float)
    model = GaussianProcess.fit(features[:30], values[:30])
    mean, deviation = model.predict(features)
    assert np.abs(mean[:30] - values[:30]).mean() < 0.3 * values.std()
    assert np.abs(mean[30:] - values[30:]).mean() < 0.5 * values.std()
    assert deviation[:30].mean() < deviation[30:].mean()


def test_what_is_pending_leaves_less_to_learn_and_no_other_mean():
    features = np.eye(6)
    model = GaussianProcess.fit(features[:3], np.array([0.0, 1.0, 3.0]))
    mean, deviation = model.predict(features[3:])
    same, after = model.predict(features[3:], features[4:5])
    assert np.array_equal(mean, same)
    assert after[1] < 0.8 * deviation[1]
    assert (after <= deviation + 1e-12).all()


def test_values_that_are_all_equal_are_predicted():
    mean, deviation = GaussianProcess.fit(np.eye(3), np.full(3, 2.0)).predict(np.eye(3))
    assert np.allclose(mean, 2)
    assert np.isfinite(deviation).all()

"""The judges of chapter 00: right on what they measure, deaf to what they should ignore, clear when asked wrongly."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backprop_lit.derivative import (GRAD_ATOL, GRAD_RTOL, central_difference, complex_step,
                                     directional_derivative, max_error, numerical_grad)

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
POINTS = hnp.arrays(np.float64, SHAPES, elements=st.floats(-3, 3))
NUMBERS = st.floats(-3, 3)
relaxed = settings(deadline=None, max_examples=30)    # a busy machine is no failure
SMOOTH = [(np.exp, np.exp), (np.sin, np.cos), (np.tanh, lambda x: 1 - np.tanh(x)**2),
          (lambda x: x**3 - x, lambda x: 3 * x**2 - 1),
          (lambda x: 1 / (x**2 + 1), lambda x: -2 * x / (x**2 + 1)**2)]


def close(a, b): np.testing.assert_allclose(a, b, rtol=GRAD_RTOL, atol=GRAD_ATOL)
def smooth(x): return np.sum(np.sin(x) * np.exp(x / 2))
def smooth_grad(x): return np.exp(x / 2) * (np.cos(x) + np.sin(x) / 2)


@relaxed
@given(st.sampled_from(SMOOTH), NUMBERS)
def test_rules_agree_with_the_closed_form(pair, x):
    f, slope = pair
    close(central_difference(f, x), slope(x))
    assert complex_step(f, x) == pytest.approx(slope(x), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize('x', [1e-6, 1.0, 1e3, 1e9, -1e9])
def test_the_step_grows_with_x(x):
    assert central_difference(lambda v: v * v, x) == pytest.approx(2 * x, rel=1e-9, abs=1e-9)


def test_divides_by_the_distance_travelled():
    x = 1e6                 # at a step near the spacing of floats, 2h itself is 14 % off
    h = 1.8 * np.spacing(x)
    assert central_difference(lambda v: v, x, h) == 1
    assert abs(((x + h) - (x - h)) / (2 * h) - 1) > 0.1


@relaxed
@given(POINTS)
def test_gradient_in_any_shape(x):
    before = x.copy()
    for rule in (central_difference, complex_step):
        grad = numerical_grad(smooth, x, rule=rule)
        assert grad.shape == x.shape and grad.dtype == np.float64
        close(grad, smooth_grad(x))
    np.testing.assert_array_equal(x, before)


@relaxed
@given(POINTS, st.integers(0, 2**32 - 1))
def test_direction_is_gradient_times_direction(x, seed):
    direction = np.random.default_rng(seed).normal(size=x.shape)
    close(directional_derivative(smooth, x, direction), np.sum(smooth_grad(x) * direction))
    exact = directional_derivative(smooth, x, direction, rule=complex_step)
    assert exact == pytest.approx(np.sum(smooth_grad(x) * direction), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int64, np.uint8, bool])
def test_every_real_dtype_is_measured_in_float64(dtype):
    seen = []
    def f(x): seen.append(x.dtype); return np.sum(x**2)
    x = np.array([0, 1, 1], dtype)
    close(numerical_grad(f, x), 2.0 * x)
    assert set(seen) == {np.dtype(np.float64)} and x.dtype == dtype


def test_a_function_that_writes_to_its_argument_does_no_harm():
    def rude(x):
        total = np.sum(x**2)
        x[...] = 7
        return total
    x = np.array([1., 2.])
    close(numerical_grad(rude, x), [2, 4])
    close(directional_derivative(rude, x, [1., 1.]), 6)
    np.testing.assert_array_equal(x, [1, 2])


def test_a_failing_function_leaves_the_input_alone():
    def f(x): raise ZeroDivisionError
    x = np.array([1., 2.])
    with pytest.raises(ZeroDivisionError): numerical_grad(f, x)
    np.testing.assert_array_equal(x, [1, 2])


def test_lists_views_and_read_only_arrays():
    close(numerical_grad(smooth, [0.5, 1.5]), smooth_grad(np.array([0.5, 1.5])))
    x = np.arange(12.).reshape(3, 4) / 4
    x.flags.writeable = False
    close(numerical_grad(smooth, x.T[::2]), smooth_grad(x.T[::2]))


@pytest.mark.parametrize('result', [3.0, np.float32(3), np.array(3.), np.array([3.]), np.array([[3.]]), 3])
def test_one_number_in_any_wrapping(result): assert central_difference(lambda x: result, 1.0) == 0


def test_two_calls_for_each_entry_and_two_for_a_direction():
    calls = []
    def f(x): calls.append(1); return np.sum(x)
    numerical_grad(f, np.ones((3, 4)))
    assert len(calls) == 24
    directional_derivative(f, np.ones((3, 4)), np.ones((3, 4)))
    assert len(calls) == 26


def test_nan_is_passed_on(): assert math.isnan(central_difference(lambda x: math.nan, 1.0))


BAD = [
    (lambda: central_difference(lambda x: np.ones(3), 1.0), ValueError, r'one real number from f.*\(3,\).*np\.sum'),
    (lambda: central_difference(lambda x: None, 1.0), TypeError, 'one real number from f.*None'),
    (lambda: central_difference(lambda x: 1j, 1.0), TypeError, 'one real number from f.*1j'),
    (lambda: central_difference(math.exp, np.ones(2)), ValueError, r'as x.*\(2,\).*numerical_grad'),
    (lambda: central_difference(math.exp, 'one'), TypeError, "as x.*'one'"),
    (lambda: complex_step(abs, 1.0), TypeError, 'one complex number.*central_difference'),
    (lambda: complex_step(np.exp, 1j), TypeError, 'as x.*1j'),
    (lambda: complex_step(np.exp, 1.0, h=0), ValueError, 'above 0.*h = 0'),
    (lambda: numerical_grad(np.sin, np.ones(3)), ValueError, r'\(3,\)'),
    (lambda: numerical_grad(smooth, np.ones(3) * 1j), TypeError, 'complex128'),
    (lambda: numerical_grad(smooth, ['a', 'b']), TypeError, 'real numbers'),
    (lambda: directional_derivative(smooth, np.ones(3), np.ones(2)), ValueError, r'\(3,\).*\(2,\)'),
    (lambda: max_error(np.ones(3), np.ones((3, 1))), ValueError, r'\(3,\).*\(3, 1\)'),
]

@pytest.mark.parametrize('call, error, words', BAD)
def test_errors_say_what_came_and_what_to_do(call, error, words):
    with pytest.raises(error, match=words): call()


@pytest.mark.parametrize('x, h', [(1e6, 1e-12), (1.0, 0.0), (1.0, -1e-6), (math.inf, None), (math.nan, None)])
def test_a_step_that_cannot_move_x(x, h):
    with pytest.raises(ValueError, match='expected a step that moves x'): central_difference(math.exp, x, h)


@relaxed
@given(SHAPES.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.float64, shape, elements=NUMBERS)] * 2)))
def test_max_error(pair):
    a, b = pair
    assert max_error(a, b) == max_error(b, a) == max([0.0, *np.abs(a - b).ravel()])


def test_max_error_of_nan_and_nothing():
    assert math.isnan(max_error([1., math.nan], [1., 2.])) and max_error([], []) == 0


@relaxed
@given(hnp.arrays(np.float64, (2, 3), elements=st.floats(0.5, 3)), st.integers(0, 5))
def test_the_tolerances_tell_right_from_wrong(x, entry):
    measured, right = numerical_grad(smooth, x), smooth_grad(x)
    damaged = right.copy()
    damaged.flat[entry] += 1e-5 * (1 + abs(damaged.flat[entry]))
    assert np.allclose(right, measured, rtol=GRAD_RTOL, atol=GRAD_ATOL)
    assert not np.allclose(damaged, measured, rtol=GRAD_RTOL, atol=GRAD_ATOL)

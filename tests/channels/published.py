"""ResNets and MobileNets as everybody builds them (arXiv 1512.03385, 1704.04861 and 1801.04381), with torchvision's names."""

from torch import nn


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels, 4 * width, stride)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


def shortcut(channels, out_channels, stride):
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    def __init__(self, block, depths):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for number, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                width = 64 * 2**number
                blocks.append(block(channels, width, 2 if number and not index else 1))
                channels = width * block.expansion
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet50():
    return ResNet(Bottleneck, (3, 4, 6, 3))


def resnet34():
    return ResNet(BasicBlock, (3, 4, 6, 3))


def conv_bn_relu(channels, out_channels, kernel=3, stride=1, groups=1):
    conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    def __init__(self, channels, out_channels, stride, expand):
        super().__init__()
        self.residual = stride == 1 and channels == out_channels
        hidden = channels * expand
        layers = [] if expand == 1 else [conv_bn_relu(channels, hidden, 1)]
        layers += [conv_bn_relu(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, out_channels, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(out_channels))

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


def rounded(channels):
    """To the nearest multiple of 8, and not below 90%."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class MobileNetV2(nn.Module):
    def __init__(self, width=1.0):
        super().__init__()
        channels = rounded(32 * width)
        features = [conv_bn_relu(3, channels, stride=2)]
        rows = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        for expand, out_channels, depth, stride in rows:
            for index in range(depth):
                made = rounded(out_channels * width)
                features.append(InvertedResidual(channels, made, 1 if index else stride, expand))
                channels = made
        last = rounded(1280 * max(width, 1.0))
        features.append(conv_bn_relu(channels, last, 1))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, 1000)

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class MobileNetV1(nn.Module):
    def __init__(self):
        super().__init__()
        channels, features = 32, [conv_bn_relu(3, 32, stride=2)]
        for out_channels, stride in (
            (64, 1),
            *((128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
            *((512, 1),) * 5,
            *((1024, 2), (1024, 1)),
        ):
            features += [conv_bn_relu(channels, channels, 3, stride, channels), conv_bn_relu(channels, out_channels, 1)]
            channels = out_channels
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1024, 1000)

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
